"""What an operator may set about engines and their weights. Read once, like all settings; see `Settings`."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.engines import check_engine, load_engine
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import ModelStore
from nanoswap.pipelines.runtime import Device, Runtime, Swapper
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.window import Batching
from nanoswap.serve.environment import SettingsError, integer, number, one_of

DEVICES: tuple[Device, ...] = ("cpu", "cuda")
SWAPPERS: tuple[Swapper, ...] = ("onnx", "torch")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which engines run, from which files, on what."""

    #: The first is what a swap gets that doesn't ask for one (a clip: the first that swaps clips); people may compare
    #: it with the others.
    engines: tuple[str, ...] = ("mesh",)
    folder: Path = field(default_factory=lambda: default_folder(os.environ))
    #: None: the manifest of this build.
    manifest: Path | None = None
    #: Names of licences that forbid commercial use and that the operator has accepted.
    accepted: frozenset[str] = frozenset()
    runtime: Runtime = field(default_factory=Runtime)
    style: Style = field(default_factory=Style)

    @property
    def engine(self) -> str:
        return self.engines[0]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "ModelSettings":
        """Raises SettingsError naming the variable and what it needs."""
        engines = _names(environment.get("NANOSWAP_ENGINE", "mesh"))
        if not engines or len(set(engines)) != len(engines):
            raise SettingsError("NANOSWAP_ENGINE must name one engine, or several different ones with commas between")
        manifest = environment.get("NANOSWAP_MANIFEST")
        swapper = one_of(environment, "NANOSWAP_SWAPPER", "onnx", SWAPPERS)
        dtype = one_of(environment, "NANOSWAP_DTYPE", "float32", DTYPES)
        step_batch = integer(environment, "NANOSWAP_STEP_BATCH", 8, 1, 64)
        admitted = integer(environment, "NANOSWAP_ADMITTED", 16, 1, 256)
        if admitted < step_batch:
            raise SettingsError(
                "NANOSWAP_ADMITTED must be at least NANOSWAP_STEP_BATCH: only who is admitted shares steps"
            )
        return cls(
            engines=engines,
            folder=default_folder(environment),
            manifest=Path(manifest) if manifest else None,
            accepted=frozenset(_names(environment.get("NANOSWAP_ACCEPT_LICENCES", ""))),
            runtime=Runtime(
                device=one_of(environment, "NANOSWAP_DEVICE", "cpu", DEVICES),
                swapper=swapper,
                dtype=dtype,
                threads=integer(environment, "NANOSWAP_THREADS", 0, 0, 256),
                batching=Batching(
                    most=integer(environment, "NANOSWAP_BATCH", 32, 1, 256),
                    wait=number(environment, "NANOSWAP_WINDOW_MS", 2.0, 0.0, 100.0) / 1000,
                ),
                step_batch=step_batch,
                admitted=admitted,
                compile=one_of(environment, "NANOSWAP_COMPILE", "0", ("0", "1")) == "1",
            ),
            style=Style(
                tiles=int(one_of(environment, "NANOSWAP_TILES", "1", ("1", "2", "4"))),
                tone=one_of(environment, "NANOSWAP_MATCH_TONE", "0", ("0", "1")) == "1",
                exact=one_of(environment, "NANOSWAP_EXACT_MASK", "0", ("0", "1")) == "1",
            ),
        )

    def read_manifest(self) -> Manifest:
        """Raises `ManifestError`."""
        return Manifest.read(self.manifest)

    def check(self, *, clips: bool = False) -> None:
        """Raises `ModelError` or `ManifestError` for an engine that could not be loaded, and `SettingsError` when there
        are to be `clips` and none swaps them."""
        manifest = self.read_manifest()
        self._named(manifest, clips)
        for name in self.engines:
            check_engine(name, manifest, self.store(manifest), self.runtime)

    def load(
        self, *, clips: bool = False, told: Callable[[str, int], None] = lambda _what, _rows: None
    ) -> dict[str, Engine]:
        """Every engine by name, or of `clips` those that swap them; the default one first. `told`: see `Batching`.
        Raises as `check`."""
        manifest = self.read_manifest()
        store = self.store(manifest)
        names = self._named(manifest, clips)
        runtime = replace(self.runtime, batching=replace(self.runtime.batching, told=told))
        return {name: load_engine(name, manifest, store, runtime, self.style) for name in names}

    def _named(self, manifest: Manifest, clips: bool) -> tuple[str, ...]:
        # One that the manifest doesn't have is for the loader to refuse.
        pictures_only = {name for name, entry in manifest.engines.items() if not entry.clips} if clips else set()
        names = tuple(name for name in self.engines if name not in pictures_only)
        if not names:
            raise SettingsError(
                f"{', '.join(self.engines)} of NANOSWAP_ENGINE can't swap clips: add an engine that can after a comma "
                f"(NANOSWAP_ENGINE={','.join(self.engines)},mesh), or close their line with NANOSWAP_VIDEO_REPLICAS=0"
            )
        return names

    def store(self, manifest: Manifest) -> ModelStore:
        return ModelStore(self.folder, manifest, self.accepted)


def default_folder(environment: Mapping[str, str]) -> Path:
    """Where weights lie when nothing else is said: NANOSWAP_MODELS, or the user's cache."""
    named = environment.get("NANOSWAP_MODELS")
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(cache) / "nanoswap" / "models"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
