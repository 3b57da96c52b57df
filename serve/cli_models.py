"""``nanoswap models list|pull|verify|lock``: the operator's files of weights.

What the commands find goes to standard output; progress and what a licence says to standard error. They work on the
folder alone and ask no service. Names are those of models, of engines for all that these are made of, or `gate` for the
classifiers of the safety gate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nanoswap.pipelines.manifest import EngineEntry
from nanoswap.pipelines.model_store import ModelCorrupt, ModelError, ModelStore, ModelUnknown, State
from nanoswap.serve.cli_words import add_words, given
from nanoswap.serve.model_pull import pull

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add(commands: Commands) -> None:
    """Add the group to the command line."""
    common = argparse.ArgumentParser(add_help=False)
    add_words(common, engine=False)
    common.add_argument("--json", action="store_true", help="answer as JSON")
    text = "the files of weights of neural engines"
    group = commands.add_parser("models", help=text, description=text)
    actions = group.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, act: Callable[[argparse.Namespace], int], text: str, names: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text, parents=[common])
        sub.set_defaults(run=run, act=act)
        if names:
            sub.add_argument(
                "names", nargs=names, metavar="NAME", help="a model, an engine for all that it needs, or gate"
            )
            sub.add_argument("--all", action="store_true", help="of an engine: also what it uses when it is there")
        return sub

    action("list", _list, "what there is, and how it stands here", "")
    action("pull", _pull, "fetch files of weights", "+")
    action("verify", _verify, "whether the files are what they should be", "*")
    lock = action("lock", _lock, "record what lies here as what should, where nobody has published a hash", "+")
    lock.add_argument("--again", action="store_true", help="also when something else was recorded before")


def run(arguments: argparse.Namespace) -> int:
    """One command; its exit code. Raises `SettingsError`, `ManifestError`, `ModelError`, `Unreachable`."""
    act: Callable[[argparse.Namespace], int] = arguments.act
    try:
        return act(arguments)
    except OSError as error:
        raise ModelError(f"{error.filename or 'the folder of weights'}: {error.strerror}") from None


def _list(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    states = {name: store.state(name) for name in store.manifest.models}
    rows = [
        {
            "name": name,
            "state": states[name],
            "role": model.role,
            "file": model.file,
            "licence": model.licence.name,
            "use": model.use,
            "stand_in": model.stand_in,
        }
        for name, model in store.manifest.models.items()
    ]
    engines = [
        {"name": name, "label": entry.label, "lacks": [one for one in entry.needs if states[one] != "ok"]}
        for name, entry in store.manifest.engines.items()
    ]
    keys = ("name", "state", "role", "licence", "file")
    lines = _table([[str(row[key]) for key in keys] for row in rows])
    lines += ["", *(_engine(store.manifest.engines[str(one["name"])], states) for one in engines)]
    gate = {"there": bool(store.manifest.gate), "lacks": [one for one in store.manifest.gate if states[one] != "ok"]}
    lines.append(f"gate: {_lacks(store.manifest.gate, states)}" if gate["there"] else "gate: the manifest has none")
    return _answer(arguments, {"folder": str(store.folder), "models": rows, "engines": engines, "gate": gate}, lines)


def _engine(entry: EngineEntry, states: Mapping[str, State]) -> str:
    return f"engine {entry.name}: " + (_lacks(entry.needs, states) if entry.needs else "needs no weights")


def _lacks(needs: Sequence[str], states: Mapping[str, State]) -> str:
    lacks = [f"{name} ({states[name]})" for name in needs if states[name] != "ok"]
    return f"lacks {', '.join(lacks)}" if lacks else "all that it needs is in order"


def _pull(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    names = _names(arguments, store)
    for name in names:
        # Before the first download: nobody wants to hear of a licence after half an hour.
        store.check_licence(name)
    rows, lines = [], []
    for name in names:
        model = store.model(name)
        was = store.state(name)
        if was not in ("ok", "unlocked"):
            print(f"{name}: {model.licence.title}. {model.use}", file=sys.stderr)
            meter = _Meter(name, sys.stderr.isatty())
            try:
                pull(store, name, meter)
            finally:
                meter.end()
        came = "was there" if was in ("ok", "unlocked") else "pulled"
        with store.path(name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        after = None if store.agreed(name) is not None else f"nanoswap models lock {name}"
        rows.append({"name": name, "pulled": came == "pulled", "sha256": digest, "next": after})
        lines.append(f"{name}: {came}, SHA-256 {digest}")
        if after is not None:
            lines.append(
                f"  Nobody has published what it should be. Compare it with a source that you trust, then: {after}"
            )
    return _answer(arguments, {"models": rows}, lines or ["nothing to pull: no weights are needed"])


def _verify(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    names = _names(arguments, store) if arguments.names else list(store.manifest.models)
    rows, lines = [], []
    for name in names:
        state, why = store.look(name)
        rows.append({"name": name, "state": state, "why": why})
        more = "" if why is None or state == "missing" else f": {why.removeprefix(f'{name}: ')}"
        lines.append(f"{name}: {state}{more}")
    _answer(arguments, {"models": rows}, lines or ["nothing to verify: no weights are needed"])
    wrong = [str(row["name"]) for row in rows if row["state"] == "wrong"]
    if wrong:
        raise ModelCorrupt(f"not what was agreed on: {', '.join(wrong)}")
    return 0


def _lock(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    rows, lines = [], []
    for name in _names(arguments, store):
        digest = store.lock(name, again=arguments.again)
        pinned = store.model(name).sha256 is not None
        rows.append({"name": name, "sha256": digest, "recorded": not pinned})
        lines.append(f"{name}: {digest} " + ("as the manifest says" if pinned else "recorded"))
    return _answer(arguments, {"models": rows}, lines or ["nothing to lock: no weights are needed"])


def _store(arguments: argparse.Namespace) -> ModelStore:
    # Imported late: it brings what the engines need, and the rest of the command line doesn't.
    from nanoswap.serve.model_settings import ModelSettings

    settings = ModelSettings.from_environment(os.environ | given(arguments))
    return settings.store(settings.read_manifest())


def _names(arguments: argparse.Namespace, store: ModelStore) -> list[str]:
    """Models by the names that were given, each once. Raises `ModelUnknown`."""
    found: dict[str, None] = {}
    for name in arguments.names:
        engine = store.manifest.engines.get(name)
        if name in store.manifest.models:
            found[name] = None
        elif engine is not None:
            found |= dict.fromkeys((*engine.needs, *(engine.uses if arguments.all else ())))
        elif name == "gate" and store.manifest.gate:
            found |= dict.fromkeys(store.manifest.gate)
        else:
            raise ModelUnknown(f"there is no model and no engine '{name}': see nanoswap models list")
    return list(found)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _answer(arguments: argparse.Namespace, value: Any, lines: Sequence[str]) -> int:
    print(json.dumps(value) if arguments.json else "\n".join(lines))
    return 0


class _Meter:
    """How much of a file has come: one line that is rewritten on a terminal, a line for every tenth elsewhere."""

    def __init__(self, name: str, terminal: bool) -> None:
        self._name, self._terminal = name, terminal
        self._shown = ""

    def __call__(self, done: int, total: int | None) -> None:
        step = 1 if self._terminal else 10
        share = f"{100 * done // total // step * step} %" if total else f"{done // 2**24 * 16} MiB"
        if share != self._shown:
            self._shown = share
            line = f"{self._name}: {share}"
            print(f"\r\x1b[K{line}" if self._terminal else line, end="" if self._terminal else "\n", file=sys.stderr)

    def end(self) -> None:
        if self._terminal and self._shown:
            print(file=sys.stderr)
