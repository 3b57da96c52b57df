"""What every file of weights is, where it comes from, what may be done with it, and what engines and the safety gate
are made of.

The manifest is data (`models.toml`), so that an operator can bring one of their own, and it is strict: a key that
nobody knows, a hash of the wrong length or an engine of two detectors is an error when it is read, not a surprise when
a swap runs. It says what should be; whether it is so on this machine is the store's to say.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar, get_args

from nanoswap.pipelines.card import Card
from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.roles import GATE, NEEDED, TOGETHER, USABLE, Kind, Role

Parameter = float | int | str

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LATENTS: Final = ("projected", "unit")
_RESERVED: Final = "models.lock"  # where the store keeps its records
_NOTHING: Final[Mapping[str, Parameter]] = MappingProxyType({})


class ManifestError(ValueError):
    """A manifest can't be read, or says what makes no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Licence:
    """name: as an operator accepts it. commercial: may be used by a service that earns. source: who says so."""

    name: str
    title: str
    source: str
    commercial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One file of weights.

    repository, revision  whose it is; a commit or the tag of a release. Where there is only a branch that moves, the
                          hash alone pins it.
    url, member           what `pull` fetches, and the file inside it when that is a zip archive.
    file                  its name in the store.
    sha256, bytes         None where nobody has published them; see `ModelStore.lock`. source: who published them.
    use                   what it does and what may be done with it.
    stand_in              made for tests: figures that come of it mean nothing.
    parameters            of a swapper: `latent` projected or unit, `mean` and `std` of its pixels (see `Scaling`).
    card                  of a classifier of the gate.
    """

    name: str
    role: Role
    repository: str
    revision: str
    url: str
    file: str
    licence: Licence
    use: str
    member: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    source: str | None = None
    stand_in: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=lambda: _NOTHING)
    card: Card | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEntry:
    """needs: models without which the engine doesn't load; uses: those it takes when the store has them; recipe: of
    the kind instantid."""

    name: str
    label: str
    kind: Kind
    licence: str
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    recipe: Recipe | None = None

    @property
    def clips(self) -> bool:
        """Whether it swaps clips too. What begins with noise and doesn't look at the frame before would flicker."""
        return not self.seeded

    @property
    def seeded(self) -> bool:
        """Whether it begins with noise, so that another seed gives another picture."""
        return self.kind in ("instantid", "klein")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Models, engines and licences by name, in the order of the file. gate: the models that the safety gate is made of;
    none when the manifest has no gate."""

    models: Mapping[str, Model]
    engines: Mapping[str, EngineEntry]
    licences: Mapping[str, Licence]
    gate: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path | None = None) -> Manifest:
        """Of a file, or of this build. Raises `ManifestError` naming the entry and what is wrong with it."""
        try:
            text = (path or resources.files("nanoswap.pipelines").joinpath("models.toml")).read_text("utf-8")
            data = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ManifestError(f"the manifest {path} can't be read: {error}") from None
        _only(data, {"licences", "models", "engines", "gate"}, "the manifest")
        licences = {name: _made(Licence, "licence", name, entry) for name, entry in _tables(data, "licences")}
        models = {name: _model(name, entry, licences) for name, entry in _tables(data, "models")}
        engines = {name: _engine(name, entry, models) for name, entry in _tables(data, "engines")}
        # Some file systems take capitals and small letters for the same.
        if len({model.file.lower() for model in models.values()}) != len(models):
            raise ManifestError("two models of the manifest have the same file")
        gate = _gate(data["gate"], models, engines) if "gate" in data else ()
        return cls(MappingProxyType(models), MappingProxyType(engines), MappingProxyType(licences), gate)


Entry = TypeVar("Entry", Licence, Model, EngineEntry, Recipe, Card)

#: What a value must be, by the annotation of its field, and what that is called; everything else is text.
_IS: Final[Mapping[str, tuple[type, str]]] = MappingProxyType(
    {
        "bool": (bool, "true or false"),
        "int": (int, "whole number"),
        "float": (float, "number with a point"),
        "int | None": (int, "whole number"),
        "tuple[str, ...]": (tuple, "list"),
        "tuple[int, ...]": (tuple, "list"),
        "tuple[float, ...]": (tuple, "list"),
        "Recipe | None": (Recipe, "table"),
        "Card | None": (Card, "table"),
        "Licence": (Licence, "licence"),
        "Mapping[str, Parameter]": (dict, "table"),
    }
)


def _tables(data: Mapping[str, Any], section: str) -> list[tuple[str, dict[str, Any]]]:
    entries = data.get(section, {})
    if not isinstance(entries, dict):
        raise ManifestError(f"{section} is not a table")
    for name, entry in entries.items():
        if not _NAME.fullmatch(name) or not isinstance(entry, dict):
            raise ManifestError(f"'{name}' of {section} is not a name with a table")
    return list(entries.items())


def _only(entry: Mapping[str, Any], known: set[str], what: str) -> None:
    for key in entry:
        if key not in known:
            raise ManifestError(f"{what} has a key that nobody knows: {key}")


def _made(kind: type[Entry], word: str, name: str, entry: Mapping[str, Any]) -> Entry:
    """A dataclass of a table, with every key known and every key there that has no default."""
    _only(entry, {one.name for one in fields(kind)} - {"name"}, f"{word} '{name}'")
    mine: dict[str, Any] = {"name": name} if "name" in {one.name for one in fields(kind)} else {}
    for one in fields(kind):
        optional = one.default is not MISSING or one.default_factory is not MISSING
        if one.name != "name" and one.name not in entry and not optional:
            raise ManifestError(f"{word} '{name}' says nothing of its {one.name}")
        must, called = _IS.get(str(one.type), (str, "text"))
        # Exactly: "false" in quotation marks would be true, and true would be a number.
        if one.name in entry and type(entry[one.name]) is not must:
            raise ManifestError(f"{word} '{name}' has a {one.name} that is no {called}")
    return kind(**mine, **entry)


def _model(name: str, entry: dict[str, Any], licences: Mapping[str, Licence]) -> Model:
    if str(entry.get("licence")) not in licences:
        raise ManifestError(f"model '{name}' has a licence that the manifest doesn't have: {entry.get('licence')}")
    card = {"card": _card(name, entry["card"])} if isinstance(entry.get("card"), dict) else {}
    model = _made(Model, "model", name, {**entry, "licence": licences[entry["licence"]], **card})
    if model.role not in get_args(Role):
        raise ManifestError(f"model '{name}' has a role that nobody knows: {model.role}")
    if (model.card is not None) != (model.role in GATE):
        raise ManifestError(f"model '{name}' of role {model.role} has {'a' if model.card else 'no'} card")
    if model.card is not None and model.card.gives == "years" and model.role != "age":
        raise ManifestError(f"model '{name}' of role {model.role} can't give years")
    if model.sha256 is not None and not _SHA256.fullmatch(model.sha256):
        raise ManifestError(f"model '{name}' has a sha256 that is not 64 hexadecimal digits in lower case")
    if model.bytes is not None and model.bytes < 1:
        raise ManifestError(f"model '{name}' has a size that is no number of bytes")
    if not _FILE.fullmatch(model.file) or model.file.lower() == _RESERVED:
        raise ManifestError(f"model '{name}' has a file that is not a plain name: {model.file}")
    if model.role == "swapper":
        if model.parameters.get("latent") not in _LATENTS:
            raise ManifestError(f"model '{name}' needs parameters.latent: {' or '.join(_LATENTS)}")
        mean, std = (model.parameters.get(key) for key in ("mean", "std"))
        # By type, because True is a whole number to Python.
        if not all(type(value) in (int, float) and math.isfinite(value) for value in (mean, std)):  # type: ignore[arg-type]
            raise ManifestError(f"model '{name}' needs parameters.mean and parameters.std, both numbers")
        if not float(str(std)) > 0:
            raise ManifestError(f"model '{name}' needs a parameters.std above 0")
    return model


def _engine(name: str, entry: dict[str, Any], models: Mapping[str, Model]) -> EngineEntry:
    lists = {key: tuple(map(str, entry[key])) for key in ("needs", "uses") if isinstance(entry.get(key), list)}
    recipe = {"recipe": _recipe(name, entry["recipe"])} if isinstance(entry.get("recipe"), dict) else {}
    engine = _made(EngineEntry, "engine", name, {**entry, **lists, **recipe})
    if engine.kind not in get_args(Kind):
        raise ManifestError(f"engine '{name}' is of a kind that nobody knows: {engine.kind}")
    for one in (*engine.needs, *engine.uses):
        if one not in models:
            raise ManifestError(f"engine '{name}' names a model that the manifest doesn't have: {one}")
    roles = [models[one].role for one in (*engine.needs, *engine.uses)]
    if len(set(roles)) != len(roles):
        raise ManifestError(f"engine '{name}' has two models of one role")
    missing = NEEDED[engine.kind] - {models[one].role for one in engine.needs}
    if missing:
        raise ManifestError(f"engine '{name}' needs a model for: {', '.join(sorted(missing))}")
    if strange := set(roles) - NEEDED[engine.kind] - USABLE[engine.kind]:
        raise ManifestError(f"engine '{name}' of kind {engine.kind} has no use for: {', '.join(sorted(strange))}")
    if (engine.recipe is not None) != (engine.kind == "instantid"):
        raise ManifestError(f"engine '{name}' of kind {engine.kind} has {'a' if engine.recipe else 'no'} recipe")
    for scale, together in TOGETHER.items():
        needed = together & {models[one].role for one in engine.needs}
        if together & set(roles) and needed != together:
            raise ManifestError(f"engine '{name}' needs all of these or none: {', '.join(sorted(together))}")
        if engine.recipe is not None and (getattr(engine.recipe, scale) > 0) != bool(needed):
            raise ManifestError(f"engine '{name}' has a {scale} above 0 if, and only if, it has that adapter")
    return engine


def _gate(table: Any, models: Mapping[str, Model], engines: Mapping[str, EngineEntry]) -> tuple[str, ...]:
    if not isinstance(table, dict) or set(table) != {"needs"} or not isinstance(table["needs"], list):
        raise ManifestError("the gate is a table with the list 'needs' and nothing else")
    needs = tuple(map(str, table["needs"]))
    for one in needs:
        if one not in models:
            raise ManifestError(f"the gate names a model that the manifest doesn't have: {one}")
        if models[one].role not in GATE:
            raise ManifestError(f"the gate has no use for: {models[one].role}")
    if missing := GATE - {models[one].role for one in needs}:
        raise ManifestError(f"the gate needs a model for: {', '.join(sorted(missing))}")
    if len(set(needs)) != len(needs):
        raise ManifestError("the gate names a model twice")
    if "gate" in models or "gate" in engines:
        raise ManifestError("no model and no engine is called 'gate': that is the gate's own name")
    return needs


def _card(name: str, table: dict[str, Any]) -> Card:
    lists = {key: tuple(value) for key, value in table.items() if isinstance(value, list)}
    for key, kind in (("mean", float), ("std", float), ("classes", str), ("refused", str)):
        if not all(type(value) is kind for value in lists.get(key, ())):
            raise ManifestError(f"card of model '{name}' has a {key} that is no list of {_CALLED[kind]}")
    try:
        return _made(Card, "card of model", name, {**table, **lists})
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError(f"card of model '{name}': {error}") from None


_CALLED: Final[Mapping[type, str]] = MappingProxyType({float: "numbers with a point", str: "texts"})


def _recipe(name: str, table: dict[str, Any]) -> Recipe:
    if isinstance(table.get("sizes"), list):
        if not all(type(size) is int for size in table["sizes"]):
            raise ManifestError(f"recipe of engine '{name}' has sizes that are no whole numbers")
        table = {**table, "sizes": tuple(table["sizes"])}
    try:
        return _made(Recipe, "recipe of engine", name, table)
    except ManifestError:
        raise
    except ValueError as error:
        raise ManifestError(f"recipe of engine '{name}': {error}") from None
