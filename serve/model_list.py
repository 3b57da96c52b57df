"""Which weights the engines are made of, as anybody may ask: the manifest's words, and nothing about this machine.

What lies in the store, what was recorded there and which licences were accepted is the operator's own business and not
in the answer.
"""

from collections.abc import Sequence

from nanoswap.pipelines.manifest import EngineEntry, Manifest, Model
from nanoswap.serve.wire import LicenceOut, ModelOut, ModelsEngineOut, ModelsOut


def models(manifest: Manifest, offered: Sequence[str]) -> ModelsOut:
    """The answer of ``/v1/models``: every engine of the manifest, in its order. ``offered``: names of those that run
    here."""
    return ModelsOut(
        engines=[_engine(entry, manifest, entry.name in offered) for entry in manifest.engines.values()],
        gate=[_model(manifest.models[name], True) for name in manifest.gate],
    )


def _engine(entry: EngineEntry, manifest: Manifest, offered: bool) -> ModelsEngineOut:
    made_of = [(name, True) for name in entry.needs] + [(name, False) for name in entry.uses]
    return ModelsEngineOut(
        name=entry.name,
        label=entry.label,
        licence=entry.licence,
        offered=offered,
        models=[_model(manifest.models[name], required) for name, required in made_of],
    )


def _model(model: Model, required: bool) -> ModelOut:
    return ModelOut(
        name=model.name,
        role=model.role,
        repository=model.repository,
        revision=model.revision,
        file=model.file,
        sha256=model.sha256,
        bytes=model.bytes,
        licence=LicenceOut(name=model.licence.name, title=model.licence.title, commercial=model.licence.commercial),
        use=model.use,
        stand_in=model.stand_in,
        required=required,
    )
