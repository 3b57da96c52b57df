"""What an operator may set about the safety gate, and where that isn't theirs to set. Read once; see `Settings`.

The region is where the service is offered, and it decides more than one thing: in the EU the gate can't be turned off.
As of 2 December 2026 Article 5 of the AI Act forbids systems that make intimate pictures of people who didn't agree, or
of children, where that is a foreseeable outcome and safeguards are missing (docs/safety.md has what is known of it and
from where; it is not legal advice). Both defaults are the strict ones, so an operator who sets nothing has a gate.
"""

import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal, get_args

from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.gate_load import check_gate, load_gate
from nanoswap.serve.environment import SettingsError, one_of
from nanoswap.serve.model_settings import ModelSettings

log = logging.getLogger(__name__)

Region = Literal["eu", "elsewhere"]
REGIONS: tuple[Region, ...] = get_args(Region)
OFF = "the safety gate is off (NANOSWAP_GATE=off): intimate pictures and faces of minors are not refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SafetySettings:
    """Where the service is offered, and whether the gate is on."""

    region: Region = "eu"
    gate: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "SafetySettings":
        """Raises SettingsError naming the variable and what it needs."""
        region = one_of(environment, "NANOSWAP_REGION", "eu", REGIONS)
        gate = one_of(environment, "NANOSWAP_GATE", "on", ("on", "off")) == "on"
        if region == "eu" and not gate:
            raise SettingsError(
                "NANOSWAP_GATE can't be off where NANOSWAP_REGION is eu (the default): as of 2 December 2026 Art. 5 of "
                "the AI Act forbids a service like this one without such safeguards; see docs/safety.md"
            )
        return cls(region=region, gate=gate)

    def check(self, models: ModelSettings) -> None:
        """Raises `ModelError` or `ManifestError` for a gate that is on and could not be loaded."""
        if self.gate:
            manifest = models.read_manifest()
            check_gate(manifest, models.store(manifest), models.runtime)

    def load(self, models: ModelSettings) -> Gate | None:
        """The gate; None, and a line in the log, where it is off. Raises as `check`."""
        if not self.gate:
            log.warning(OFF)
            return None
        manifest = models.read_manifest()
        return load_gate(manifest, models.store(manifest), models.runtime)


def for_development(environment: MutableMapping[str, str]) -> None:
    """Let a service that only its developer can reach do without a gate, unless something was said about it."""
    if "NANOSWAP_REGION" not in environment and "NANOSWAP_GATE" not in environment:
        environment.update(NANOSWAP_REGION="elsewhere", NANOSWAP_GATE="off")
