"""What an operator may set about the marks of results. Read once, like all settings; see `Settings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nanoswap.serve.environment import SettingsError, one_of
from nanoswap.serve.safety_settings import Region

if TYPE_CHECKING:
    from nanoswap.pipelines.mark import Marks


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceSettings:
    """With what results are signed, and whether they say what they are in their pixels too."""

    #: PEM files, mounted secrets: the certificate with its chain, and its key. None: results aren't signed, which only
    #: tests and benches are.
    certificate: Path | None = None
    key: Path | None = None
    label: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], region: Region) -> "ProvenanceSettings":
        """``region``: where the service is offered, which decides unless it is set. Raises SettingsError naming the
        variable and what it needs."""
        default = "on" if region == "eu" else "off"
        certificate, key = (
            environment.get(name) or None for name in ("NANOSWAP_C2PA_CERTIFICATE", "NANOSWAP_C2PA_KEY")
        )
        if (certificate is None) != (key is None):
            raise SettingsError("NANOSWAP_C2PA_CERTIFICATE and NANOSWAP_C2PA_KEY must both be set: files in PEM")
        return cls(
            certificate=Path(certificate) if certificate else None,
            key=Path(key) if key else None,
            label=one_of(environment, "NANOSWAP_LABEL", default, ("on", "off")) == "on",
        )

    def load(self) -> "Marks":
        """Read the files, and sign once to see that it works. Raises SettingsError, also when there are none."""
        if self.certificate is None or self.key is None:
            raise SettingsError(
                "NANOSWAP_C2PA_CERTIFICATE and NANOSWAP_C2PA_KEY are not set: results are signed, and only the local "
                "development service makes its own certificate"
            )
        # Imported here: who only reads settings needs no codecs and no signing library.
        from nanoswap.pipelines.mark import Marks
        from nanoswap.pipelines.provenance import CredentialError, Signer

        chain, key = _read("NANOSWAP_C2PA_CERTIFICATE", self.certificate), _read("NANOSWAP_C2PA_KEY", self.key)
        try:
            return Marks(signer=Signer(chain, key), label=self.label)
        except CredentialError as error:
            raise SettingsError(f"NANOSWAP_C2PA_CERTIFICATE: {error}") from None


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} can't be read: {error.strerror}") from None
