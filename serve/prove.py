"""`nanoswap prove`: does a running service keep anything of what it is given?

Nobody has to believe the promise; it is tried. Canaries go through the service to every end that a request can have,
and after each the memory of all its processes, its files, shared memory and Redis are searched for them. A proof that
can't fail is none, so it begins by finding bytes that it has put somewhere itself; and a window of a canary that is
no canary's own (of a codec's tables, say) counts as nothing, which a first round with other canaries tells.
"""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from nanoswap.pipelines.canary import Forms, as_array
from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.image import ImageLimits, decode
from nanoswap.pipelines.manifest import ManifestError
from nanoswap.pipelines.model_store import ModelError
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.file_trace import FileTrace
from nanoswap.serve.model_settings import ModelSettings
from nanoswap.serve.needles import SHORTEST, Keys, Needles, every_key
from nanoswap.serve.process_memory import Unread, chunks, command, parent, stopped, tree
from nanoswap.serve.scenarios import Kind, Scenario, Stage, scenarios
from nanoswap.serve.search import Remnant, Search, Seen, summed
from nanoswap.serve.visitor import Gone, Visitor
from nanoswap.serve.volatility import swap_devices

_NO_CORES: Final = frozenset({"0", "1"})  # 1 is what also stops one that goes through a pipe, core(5)
_NOT_OURS: Final = "the memory of the service can't be read: run as root on its machine"
_CONTROL: Final = 4096  # bytes that another process holds for us to find


class CanNotProve(RuntimeError):
    """What would be searched can't be seen from here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One scenario. problem: why it proves nothing, or None. on_disk: files that the service wrote to."""

    name: str
    kind: Kind
    engine: str
    ended: str
    problem: str | None = None
    remnants: int = 0
    writes: int = 0
    places: dict[str, int] = field(default_factory=dict)
    needles: dict[str, int] = field(default_factory=dict)
    on_disk: list[str] = field(default_factory=list)
    in_memory: list[str] = field(default_factory=list)
    processes: int = 0
    scanned: int = 0
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.problem is None and not self.remnants and not self.writes

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed}


class Proof:
    """One run against one service."""

    def __init__(
        self,
        visitor: Visitor,
        root: int,
        engines: Mapping[Kind, Collection[str]],
        loaded: Mapping[str, Engine],
        *,
        after: float,
    ) -> None:
        """``after``: seconds between the end of a request and the search. ``loaded``: engines whose embeddings are
        looked for."""
        self._visitor, self._root, self._engines, self._loaded, self._after = visitor, root, engines, loaded, after
        redis_url = _environment(root).get("REDIS_URL")
        if redis_url is None:
            raise CanNotProve("no process below that one has REDIS_URL: it is not the service's first process")
        self._search = Search(root, redis_url)
        #: Mount points whose writes the kernel doesn't tell.
        self.unwatched: list[str] = []

    def run(self, only: Collection[str], say: Callable[[Verdict], None]) -> list[Verdict]:
        """The scenarios named ``only``, or all. Raises `CanNotProve`, `NoTrace`, `OSError`."""
        control()
        may_look(self._root)
        verdicts = []
        with FileTrace(self._search.mine) as trace:
            self.unwatched = trace.unwatched
            for kind, engines in self._engines.items():
                for number, engine in enumerate(engines):
                    stage = Stage(self._visitor, self._root, kind, engine, *self._seen_by(engine))
                    chosen = [one for one in scenarios(kind, first=number == 0) if not only or one.name in only]
                    known = self._known(stage) if chosen else None
                    for scenario in chosen:
                        verdicts.append(self._play(scenario, stage, known, trace))
                        say(verdicts[-1])
        return verdicts

    def _play(self, scenario: Scenario, stage: Stage, known: Keys | None, trace: FileTrace) -> Verdict:
        about: dict[str, Any] = {"name": scenario.name, "kind": stage.kind, "engine": stage.engine}
        try:
            ended = scenario.act(stage)
        except Gone as gone:
            return Verdict(**about, ended="gone", problem=str(gone))
        finally:
            with suppress(Gone):
                self._visitor.give_up()
        time.sleep(self._after)
        seen = self._search.look(Needles(ended.forms, known), trace)
        wanted = ", ".join(sorted(scenario.codes))
        problem = None if ended.code in scenario.codes else f"ended as {ended.code} and not as {wanted}"
        return Verdict(**about, ended=ended.code, problem=problem, **_counted(seen))

    def _known(self, stage: Stage) -> Keys:
        """What the canaries of a first round share with the later ones is nobody's: tables and heads of formats, what
        every result says of itself, what is the same of every face."""
        known = [np.zeros(0, np.uint64)]
        for scenario in scenarios(stage.kind, first=True):
            if scenario.name.startswith("success"):
                forms = scenario.act(stage).forms.items()
                self._visitor.give_up()
                known += [every_key(data) for name, data in forms if name.endswith(", file") or "learned" in name]
        return np.unique(np.concatenate(known))

    def _seen_by(self, engine: str) -> tuple[Callable[[bytes], Forms], Callable[[bytes], int]] | tuple[()]:
        """What an engine learns of the face in a picture, and how many it sees, where it was loaded."""
        loaded = self._loaded.get(engine)
        if loaded is None:
            return ()
        return partial(learned, loaded), lambda data: len(loaded.detect(decode(data, ImageLimits())))


def load_engines(root: int, names: Collection[str]) -> tuple[dict[str, Engine], list[str]]:
    """The service's engines, in this process, to learn what they learn; and a line for each that can't be had here."""
    loaded: dict[str, Engine] = {}
    notes = []
    for name in sorted(names):
        try:
            settings = ModelSettings.from_environment(_environment(root) | {"NANOSWAP_ENGINE": name})
            loaded |= settings.load()
        except (SettingsError, ManifestError, ModelError) as error:
            notes.append(f"embeddings of {name} were not looked for: {error}")
    return loaded, notes


def learned(engine: Engine, data: bytes) -> Forms:
    """What an engine would keep of the face in a picture, as it would lie in memory: embeddings, and the like."""
    rgb = decode(data, ImageLimits())
    found = engine.detect(rgb)
    if not found:
        return {}
    source = engine.prepare(rgb, found[0])
    return {f"source, {name}": values for name, values in _arrays(source, "learned") if values.nbytes}


def _arrays(value: object, name: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Every array in an object, torch's tensors among them, by the way that leads to it."""
    if isinstance(value, np.ndarray):
        yield name, value
    elif hasattr(value, "detach"):
        yield name, np.ascontiguousarray(value.detach().cpu().float().numpy())
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            yield from _arrays(each, f"{name}[{number}]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _arrays(each, f"{name}.{key}")
    elif type(value).__module__.startswith("nanoswap."):
        names = [*vars(value)] if hasattr(value, "__dict__") else [*getattr(type(value), "__slots__", ())]
        for each in names:
            yield from _arrays(getattr(value, each), f"{name}.{each}")


def control() -> None:
    """Find bytes that another process holds. Raises `CanNotProve` when they aren't, or when they are and shouldn't."""
    secret = secrets.token_bytes(_CONTROL)
    code = "import sys, time; held = sys.stdin.buffer.read(); print(len(held), flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write(secret[: SHORTEST + 2])
            holder.stdin.close()
            holder.stdout.readline()
            with stopped(holder.pid):
                memory = [piece.copy() for piece in chunks(holder.pid, Unread())]
        except PermissionError:
            raise CanNotProve(_NOT_OURS) from None
        finally:
            holder.kill()
    held, absent = (
        Needles({"held": as_array(secret)}),
        Needles({"absent": as_array(secrets.token_bytes(_CONTROL))}),
    )
    if not any(len(held.keys_in(piece)) for piece in memory) or any(len(absent.keys_in(piece)) for piece in memory):
        raise CanNotProve("bytes that another process holds are not found as they should be")


def may_look(root: int) -> None:
    """Raises `CanNotProve` when the memory of the service's processes is not ours to read."""
    for pid in tree(root):
        try:
            with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/mem", "rb"):
                pass
        except PermissionError:
            raise CanNotProve(_NOT_OURS) from None


def find_root(port: int) -> int:
    """The first process of the service that listens on a port of this machine. Raises `CanNotProve`."""
    if sys.platform != "linux":
        raise CanNotProve("other processes' memory can be read on Linux only")
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    if not inodes:
        raise CanNotProve(f"no process of this machine listens on port {port}: run there, or give --pid")
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        try:
            mine = any(os.readlink(descriptor) in inodes for descriptor in Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            mine = False
        if mine:
            above = [pid]
            while (up := parent(above[-1])) > 0:
                above.append(up)
            serving = [one for one in above if "nanoswap" in command(one) and "serve" in command(one).split()]
            if serving:
                return serving[-1]
            raise CanNotProve("what listens there is no 'nanoswap serve': give its first process with --pid")
    raise CanNotProve(_NOT_OURS)


def _environment(root: int) -> dict[str, str]:
    """What the replicas were started with: whoever is below has it all."""
    for pid in reversed(tree(root)):
        with suppress(OSError):
            raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found = dict(line.decode(errors="replace").partition("=")[::2] for line in raw if b"=" in line)
            if "REDIS_URL" in found:
                return found
    return {}


def _counted(seen: Seen) -> dict[str, Any]:
    places = summed(seen.remnants)
    return {
        "remnants": sum(places.values()),
        "writes": len(seen.on_disk),
        "places": places,
        "needles": _most(seen.remnants),
        "on_disk": seen.on_disk,
        "in_memory": seen.in_memory,
        "processes": seen.processes,
        "scanned": seen.scanned,
        "unread": seen.unread.mappings,
    }


def _most(remnants: list[Remnant]) -> dict[str, int]:
    most: dict[str, int] = {}
    for remnant in remnants:
        most[remnant.needle] = max(most.get(remnant.needle, 0), remnant.count)
    return most


def host_facts(root: int) -> dict[str, Any]:
    """What else decides whether memory can outlive a request: the kernel's settings and each process's limits."""
    cores = {}
    for pid in tree(root):
        with suppress(OSError):
            line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line)
            cores[f"{pid} {command(pid)[:40]}"] = line.split()[4]
    return {
        "kernel": platform.release(),
        "swap": swap_devices(),
        "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text().strip(),
        "init_on_free": "init_on_free=1" in Path("/proc/cmdline").read_text(),
        "may_dump_core": [name for name, limit in cores.items() if limit not in _NO_CORES],
    }
