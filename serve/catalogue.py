"""What this service offers, as it tells anybody who asks: engine, limits, consent statement, sign-in address."""

from nanoswap import __version__
from nanoswap.pipelines.manifest import Manifest
from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD
from nanoswap.serve.limits import published
from nanoswap.serve.settings import Settings
from nanoswap.serve.wire import AuthOut, ConfigOut, ConsentOut, Demo, EngineOut, MarksOut, SafetyOut

#: Agreed to with every ticket; its id is stored with the ticket, and changes when the words do.
CONSENT = ConsentOut(
    id="likeness-3",
    text=(
        "I may use these pictures and clips. Everyone who can be recognised in them is an adult and has agreed to this "
        "swap. Nothing in them is intimate or sexual. I will say that the result is AI-generated wherever I show it, "
        "and not pass it off as real."
    ),
)


def configuration(settings: Settings, manifest: Manifest) -> ConfigOut:
    """The answer of ``/v1/config``. Raises `KeyError` for an engine that the manifest doesn't have."""
    engines = [
        EngineOut(name=entry.name, label=entry.label, licence=entry.licence, clips=entry.clips, seeded=entry.seeded)
        for entry in (manifest.engines[name] for name in settings.models.engines)
    ]
    return ConfigOut(
        version=__version__,
        engine=engines[0],
        engines=engines,
        auth=AuthOut(
            url=settings.auth_url,
            key=settings.auth_key,
            development=settings.development,
            demo=Demo(email=DEMO_EMAIL, password=DEMO_PASSWORD) if settings.development else None,
        ),
        limits=published(settings),
        consent=CONSENT,
        safety=SafetyOut(gate=settings.safety.gate, region=settings.safety.region),
        marks=MarksOut(c2pa=settings.provenance.certificate is not None, label=settings.provenance.label),
    )
