"""What is left in a GPU's memory after a job, with and without `gpu_memory`, and what overwriting it costs.

Needs torch, numpy, diffusers with what it asks for, and this package where it can be imported:
``python -m tests.bench.gpu_remnants``. Networks have their full size and random weights; jobs are noise. Prints a table
and one line of JSON; exit code 1 where something was left that should not be, or where a control found nothing.

Memory is searched in two ways, both on the GPU. In place: all of torch's segments, free blocks, blocks in use and the
pools of recorded graphs alike, while nothing runs. And as the next one would get it: the cache is given back to the
driver, everything that is free is allocated without being cleared, and looked at. A needle is searched for by windows
of 16 bytes that begin at multiples of 8. Needles are the bytes that a job was given and gave, in the layouts and types
that they may have on the way, and what each layer made of them, taken by hooks. The search has a pool of its own, so
that it overwrites nothing that it looks for.

``--smoke`` runs the same with tiny networks on the processor as far as it goes: the search on plain tensors, the jobs,
the hooks. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from nanoswap.pipelines.gpu_memory import Block, gpu_memory, wipe_cache
from nanoswap.pipelines.inswapper_net import published
from nanoswap.pipelines.swap_net_torch import DTYPES, TorchSwapNet
from nanoswap.serve import needles as host
from nanoswap.serve.process_memory import Unread, chunks
from nanoswap.serve.volatility import FREED_MEMORY
from tests.bench.gpu_swap import faces, random_net

WINDOWS: Final = 2048  # of each needle
PIECE: Final = 2**28  # bytes that are searched at once
PLANTED: Final = 64 * 2**20
_A, _B = -7046029254386353131, -4417276706812531889  # odd, of 64 bits
_BITS: Final = 28


def spread(tensor: Tensor) -> np.ndarray:
    """int64 (n, 2): windows of 16 bytes from all over a tensor as it lies in memory, at multiples of 16. Those that
    would fit many tensors (constants, padding) are left out."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    count = len(flat) // 16
    if not count:
        return np.zeros((0, 2), np.int64)
    many = min(count, 4 * WINDOWS)
    chosen = torch.arange(many, device=flat.device) * count // many
    rows = flat[: count * 16].view(-1, 16)[chosen].cpu().numpy()
    size = tensor.element_size()
    values = np.sort(rows.view({1: np.uint8, 2: np.uint16, 4: np.uint32}.get(size, np.uint64)), 1)
    distinct = (np.diff(values, axis=1) != 0).sum(1) + 1
    telling = rows[distinct >= {1: 8, 2: 6, 4: 4}.get(size, 2)]
    return np.ascontiguousarray(telling[:: max(1, len(telling) // WINDOWS)]).view(np.int64)


def laid_out(tensor: Tensor) -> list[Tensor]:
    """A tensor of four dimensions may lie channels first or last, whatever its shape says."""
    return [tensor, tensor.permute(0, 2, 3, 1)] if tensor.dim() == 4 else [tensor]


def of_pixels(name: str, rgb: np.ndarray) -> dict[str, np.ndarray]:
    """uint8 (N, S, S, 3) in the forms in which networks and libraries take it."""
    pixels = torch.from_numpy(rgb.copy())
    forms = {f"{name} uint8": [pixels, pixels.permute(0, 3, 1, 2)]}
    for kind, dtype in DTYPES.items():
        unit = [(pixels.float() * (1 / 255)).to(dtype), (pixels.float() / 255).to(dtype)]
        both = (pixels.float().div(255) * 2 - 1).to(dtype)
        forms[f"{name} {kind}"] = [form for each in (*unit, both) for form in (each, each.permute(0, 3, 1, 2))]
    return {form: np.concatenate([spread(each) for each in several]) for form, several in forms.items()}


class Needles:
    """What is searched for; on the device, in a pool of the search's own."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._pool: Any = torch.cuda.MemPool() if device == "cuda" else None
        self._windows: dict[str, list[np.ndarray]] = {}
        self._ready: tuple[list[str], Tensor, Tensor, Tensor, Tensor] | None = None

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is allocated in here takes no block that may hold a remnant."""
        if self._pool is None:
            yield
        else:
            with torch.cuda.use_mem_pool(self._pool):
                yield

    def add(self, name: str, windows: np.ndarray) -> None:
        if len(windows):
            self._windows.setdefault(name, []).append(windows)
            self._ready = None

    @property
    def names(self) -> list[str]:
        return list(self._windows)

    @torch.inference_mode()
    def found(self, pieces: Iterator[Tensor]) -> dict[str, int]:
        """How many windows of each are seen in uint8 tensors."""
        counts: dict[str, int] = {}
        with self.apart():
            names, first, second, owner, table = self._prepared()
            for memory in pieces:
                for at in range(0, len(memory), PIECE):
                    words = memory[at : at + PIECE + 8]
                    words = words[: len(words) // 8 * 8].view(torch.int64)
                    hit = table[_place(words[:-1])].nonzero()[:, 0]
                    if len(hit):
                        index = torch.searchsorted(first, words[hit]).clamp_(max=len(first) - 1)
                        sure = (first[index] == words[hit]) & (second[index] == words[hit + 1])
                        for one, many in zip(*owner[index[sure]].unique(return_counts=True), strict=True):
                            counts[names[int(one)]] = counts.get(names[int(one)], 0) + int(many)
        return counts

    def _prepared(self) -> tuple[list[str], Tensor, Tensor, Tensor, Tensor]:
        if self._ready is None:
            names = self.names
            words = np.concatenate([np.concatenate(self._windows[name]) for name in names])
            owner = np.repeat(np.arange(len(names)), [sum(map(len, self._windows[name])) for name in names])
            _, order = np.unique(words[:, 0], return_index=True)
            first, second, mine = (
                torch.from_numpy(np.ascontiguousarray(each[order])).to(self.device)
                for each in (words[:, 0], words[:, 1], owner)
            )
            table = torch.zeros(2**_BITS, dtype=torch.bool, device=self.device)
            table[_place(first)] = True
            self._ready = names, first, second, mine, table
        return self._ready

    def in_place(self) -> dict[str, int]:
        """Everything that torch has of the device, but for the search's own."""
        torch.cuda.synchronize()
        mine = tuple(self._pool.id)

        def pieces() -> Iterator[Tensor]:
            for segment in torch.cuda.memory_snapshot():
                if tuple(segment["segment_pool_id"]) != mine:
                    yield torch.as_tensor(Block(segment["address"], segment["total_size"]), device=self.device)

        return self.found(pieces())

    def given(self) -> dict[str, int]:
        """Everything that the driver has to give."""
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        with self.apart():
            self._prepared()
            room = torch.empty(8 * PIECE, dtype=torch.uint8, device=self.device)  # for the search itself
            del room
        driver = ctypes.CDLL("libcuda.so.1")
        taken: list[int] = []
        at = ctypes.c_uint64()
        while driver.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(2 * PIECE)) == 0:
            taken.append(at.value)
        try:
            counts = self.found(torch.as_tensor(Block(one, 2 * PIECE), device=self.device) for one in taken)
            torch.cuda.synchronize()
        finally:
            for one in taken:
                driver.cuMemFree_v2(ctypes.c_uint64(one))
        counts["(bytes searched)"] = len(taken) * 2 * PIECE
        return counts


def _place(words: Tensor) -> Tensor:
    return ((words * _A) >> (64 - _BITS)).bitwise_and_(2**_BITS - 1)


def canary(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, PLANTED, dtype=np.uint8)


class Report:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.failed = False

    def __call__(self, what: str, found: Mapping[str, int], *, want: str = "any", **more: object) -> None:
        """want: none, some, or any, where what is found is only told."""
        hits = sum(count for name, count in found.items() if name[0] != "(")
        good = {"any": True, "none": not hits, "some": hits > 0}[want]
        self.failed |= not good
        top = sorted(((n, c) for n, c in found.items() if n[0] != "("), key=lambda each: -each[1])
        self.lines.append({"what": what, "windows": hits, "want": want, "ok": good, "found": dict(top[:20]), **more})
        names = ", ".join(f"{name} {count}" for name, count in top[:4])
        extra = "".join(f"; {name} {value}" for name, value in more.items())
        print(f"{'ok  ' if good else 'FAIL'} {what:<66}{hits:>9} of {want:<5}{names}{extra}", flush=True)


# (a) to (d): the cache, the driver, pinned and staged memory


def plant(device: str, data: np.ndarray) -> None:
    """Large and small blocks, freed on the default stream and on another."""
    pinned = torch.from_numpy(data).pin_memory() if device == "cuda" else torch.from_numpy(data)
    kept = [pinned.to(device)]
    kept += [pinned[at : at + 300_000].to(device) for at in range(0, 30_000_000, 300_000)]
    if device == "cuda":
        stream: Any = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            kept += [kept[0].clone(), kept[1].clone()]
        stream.synchronize()
        del kept[1::2]  # holes between blocks that stay
        torch.cuda.synchronize()


def cached(report: Report, device: str) -> None:
    needles = Needles(device)
    data = canary(1)
    needles.add("planted", spread(torch.from_numpy(data)))
    needles.add("planted", spread(torch.from_numpy(data[:30_000_000])))
    gpu = torch.device(device)
    report("nothing planted yet, in place", needles.in_place(), want="none")
    plant(device, data)
    report("planted and freed, in place", needles.in_place(), want="some")
    started = time.perf_counter()
    wiped = wipe_cache(gpu)
    took = time.perf_counter() - started
    what, ms = "the same after wipe_cache, in place", round(took * 1e3, 2)
    report(what, needles.in_place(), want="none", bytes=wiped.covered, left=wiped.left, ms=ms)
    found = needles.given()
    report("the same after wipe_cache, given back to the driver", found, want="none", bytes=found["(bytes searched)"])
    plant(device, data)
    found = needles.given()
    report("planted, freed, given back to the driver unwiped: own process", found)
    report("in use while others wipe: nothing is touched", in_use(gpu), want="none")


def in_use(gpu: torch.device) -> dict[str, int]:
    """Threads that allocate, compute and free while another wipes without end; how many results were wrong."""
    import threading

    stop, wrong, done = threading.Event(), [], []

    def work(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
            while not stop.is_set():
                side = int(torch.randint(10, 1500, (1,), generator=generator))
                values = torch.arange(side * side, device=gpu, dtype=torch.float32).view(side, side)
                total = (values.clone().t().contiguous().t() - values).abs().sum()
                if float(total) or float(values[-1, -1]) != side * side - 1:
                    wrong.append(seed)
                done.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    until, wipes = time.monotonic() + 3, 0
    while time.monotonic() < until:
        wipe_cache(gpu)
        wipes += 1
    stop.set()
    for thread in threads:
        thread.join()
    return {"wrong": len(wrong), "(wipes)": wipes, "(results)": len(done)} if done else {"no thread did anything": 1}


def child(how: str) -> int:
    """Another process, which plants, and waits while it lives. how: freed, wiped, kept (until it exits)."""
    if how == "pinned":
        return look_at_host()
    device = torch.device("cuda")
    data = torch.from_numpy(canary(2))
    kept = [data.to(device) for _ in range(8)]
    torch.cuda.synchronize()
    if how != "kept":
        kept.clear()
        if how == "wiped":
            wipe_cache(device)
        torch.cuda.empty_cache()
    print("ready", flush=True)
    sys.stdin.readline()
    os._exit(0)


def processes(report: Report) -> None:
    needles = Needles("cuda")
    needles.add("planted", spread(torch.from_numpy(canary(2))))
    for how in ("freed", "kept", "wiped"):
        command = [sys.executable, "-m", "tests.bench.gpu_remnants", "--child", how]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdin is not None
            assert other.stdout is not None
            if other.stdout.readline().strip() != "ready":
                report(f"another process ({how}) did not start", {"failed": 1}, want="none")
                continue
            want = "none" if how == "wiped" else "any"
            report(f"another process, {how}, while it lives", needles.given(), want=want)
            other.stdin.write("\n")
            other.stdin.flush()
            other.wait(60)
        report(f"another process, {how}, after it has gone", needles.given(), want=want)


def pinned(report: Report) -> None:
    """torch's cache of pinned memory, and what the driver carries pageable memory through: in the memory of another
    process, whose allocator overwrites what is freed."""
    command = [sys.executable, "-m", "tests.bench.gpu_remnants", "--child", "pinned"]
    done = subprocess.run(command, env=os.environ | FREED_MEMORY, stdout=subprocess.PIPE, text=True, timeout=300)
    for line in done.stdout.splitlines():
        what, found, want, more = json.loads(line)
        report(what, found, want=want, **more)
    report("pinned and staged memory: the process that looked", {"exit code": done.returncode}, want="none")


def look_at_host() -> int:
    data = canary(3)[: 8 * 2**20].copy()
    planted = host.Needles.of({"planted": host.window_keys(data)})
    gpu = torch.device("cuda")

    def tell(what: str, want: str = "any", **more: object) -> None:
        found = planted.count(np.concatenate([planted.keys_in(each) for each in chunks(os.getpid(), Unread())]))
        print(json.dumps([what, found, want, more]), flush=True)

    block = torch.from_numpy(data).pin_memory()
    ctypes.memset(data.ctypes.data, 0, data.nbytes)
    del block
    tell("pinned memory, freed into torch's cache", "some")
    block = torch.empty(len(data), dtype=torch.uint8, pin_memory=True)
    block.zero_()
    del block
    tell("the next pinned block of that size, zeroed", "none")
    data[:] = canary(3)[: len(data)]
    there = torch.from_numpy(data).to(gpu)
    back = there.cpu()
    for each in (there, back):
        each.zero_()
    data.fill(0)
    del there, back
    tell("pageable memory there and back: what the driver keeps of it")
    ours = gpu_memory("cuda")
    ours.rinse()
    started = time.perf_counter()
    ours.rinse()
    took = round((time.perf_counter() - started) * 1e3, 2)
    tell("the same after a rinse", "none", ms=took)
    return 0


# (e), (f): jobs


class Hooks:
    """Every layer's output of a job becomes a needle."""

    def __init__(self, needles: Needles, net: nn.Module, prefix: str, *, most: int = 150) -> None:
        self._needles, self._prefix = needles, prefix
        leaves = [(name, each) for name, each in net.named_modules() if not list(each.children())]
        step = max(1, len(leaves) // most)
        self._handles = [each.register_forward_hook(self._hook(name)) for name, each in leaves[::step]]

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            if isinstance(made, Tensor) and made.numel() > 1024:
                with self._needles.apart():
                    for form in laid_out(made):
                        self._needles.add(f"{self._prefix} {name}", spread(form))

        return hook

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def timed(call: Callable[[], object], rounds: int = 7) -> float:
    """ms, median."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3


def search(needles: Needles, held: Mapping[str, Tensor]) -> dict[str, int]:
    """In place on CUDA. On the processor there is no cache to look into: what is given."""
    if needles.device == "cuda":
        return needles.in_place()
    flat = (each.contiguous().reshape(-1).view(torch.uint8) for each in held.values())
    return needles.found(flat)


def swap_net(report: Report, device: str, kind: str, rows: int) -> None:
    smoke = device != "cuda"
    plan = published((8, 16, 24, 32), 2, size=32) if smoke else published()
    needles = Needles(device)
    crops, latents = faces(plan, rows)
    master = random_net(plan)
    eager = TorchSwapNet(master, device=device, dtype=DTYPES[kind], graphs=False)
    hooks = Hooks(needles, master, "layer")
    made = eager(crops, latents).crops
    hooks.remove()
    for name, windows in {**of_pixels("crop", crops), **of_pixels("result", made)}.items():
        needles.add(name, windows)
    for each in (torch.from_numpy(latents), torch.from_numpy(latents).to(DTYPES[kind])):
        needles.add("identity", spread(each))
    title = f"inswapper {kind}, {rows} rows"
    if smoke:
        found = search(needles, {"crop": torch.from_numpy(crops), "made": torch.from_numpy(made)})
        report(f"{title}: the search finds what it is given", found, want="some", needles=len(needles.names))
        eager.rinse()
        return
    gpu = torch.device(device)
    report(f"{title}: eager, in place", needles.in_place(), want="some", needles=len(needles.names))
    wipe_cache(gpu)
    report(f"{title}: eager, after wipe_cache", needles.in_place(), want="none")
    net = TorchSwapNet(master, device=device, dtype=DTYPES[kind], graphs=True)
    report(f"{title}: graphs recorded, nothing run", needles.in_place(), want="none")
    again = net(crops, latents).crops
    report(f"{title}: graphs, in place", needles.in_place(), want="some", differ=int((again != made).sum()))

    def rinse() -> None:
        net.rinse()
        wipe_cache(gpu)

    rinse()
    report(f"{title}: graphs, after rinse and wipe_cache", needles.in_place(), want="none")
    found = needles.given()
    report(f"{title}: graphs, after both, given back to the driver", found, want="none")
    same = np.array_equal(net(crops, latents).crops, again)
    report(f"{title}: gives the same after a rinse", {} if same else {"differs": 1}, want="none")
    for count in sorted({1, rows}):
        job, both = timed(lambda n=count: net(crops[:n], latents[:n])), timed(rinse)  # type: ignore[misc]
        reserved = torch.cuda.memory_reserved() >> 20
        report(f"{title}: cost, {count} rows", {}, job_ms=round(job, 3), rinse_ms=round(both, 3), MiB=reserved)


def flagship(report: Report, device: str, size: int, steps: int) -> None:
    from tests.bench.flagship_ours import Lane, Ours, noise
    from tests.bench.flagship_parts import FULL, TINY

    smoke = device != "cuda"
    ours, lane = Ours(TINY if smoke else FULL, device), Lane(size, steps, guided=False, compiled=False)
    denoiser, needles = ours.denoiser(lane), Needles(device)
    gpu = torch.device(device)
    parts = ours.nets
    if not smoke:
        gpu_memory(device).enter()  # as the engine does in each thread

    def job(watched: bool) -> dict[str, Tensor]:
        one = ours.begin(denoiser, 7)
        held = {"original": one.original, "noise": one.noise, "hint": one.hint, "tokens": one.tokens[0]}
        if watched:
            note(held)
        while not one.done:
            denoiser.step([one])
            if watched:
                note({"latents": one.latents})
        made = ours.autoencoder.decode(one.latents)
        if watched:
            for name, windows in {**of_pixels("crop", noise(size)[0][None]), **of_pixels("result", made[None])}.items():
                needles.add(name, windows)
        one.wipe()
        made.fill(0)
        return held

    def note(tensors: Mapping[str, Tensor]) -> None:
        with needles.apart():
            for name, tensor in tensors.items():
                for dtype in (torch.float32, torch.bfloat16, torch.float16):
                    for form in laid_out(tensor.to(dtype)):
                        needles.add(name, spread(form))

    hooks = [Hooks(needles, each, name) for name, each in
             (("unet", parts.unet), ("net", parts.identity_net), ("vae", parts.vae))]  # fmt: skip
    job(watched=True)
    for each in hooks:
        each.remove()
    title = f"flagship {size} px, {steps} steps"
    if smoke:
        found = search(needles, {"crop": torch.from_numpy(noise(size)[0])})
        report(f"{title}: the search finds what it is given", found, want="some", needles=len(needles.names))
        return
    report(f"{title}: in place", needles.in_place(), want="some", needles=len(needles.names))
    mine = gpu_memory(device)
    wiped = mine.rinse()
    what = f"{title}: after a rinse, in place"
    report(what, needles.in_place(), want="none", MiB=wiped.covered >> 20, left=wiped.left)
    found = needles.given()
    report(f"{title}: after a rinse, given back", found, want="none", GiB=found["(bytes searched)"] >> 30)
    job(watched=False)
    alone = timed(lambda: job(watched=False), 3)
    rinse = timed(mine.rinse, 5)
    fresh = torch.cuda.memory_stats().get("num_device_alloc", 0)
    job(watched=False)
    more = torch.cuda.memory_stats().get("num_device_alloc", 0) - fresh
    share = f"{rinse / alone:.1%}"
    report(f"{title}: cost", {}, job_ms=round(alone, 2), wipe_ms=round(rinse, 3), share=share, mallocs=more)
    report(f"{title}: a job unwiped, in place", needles.in_place(), want="some")
    found = needles.given()
    report(f"{title}: a job unwiped, given back to the driver", found)
    wipe_cache(gpu)


def main() -> int:
    parser = argparse.ArgumentParser(description="what is left in a GPU's memory")
    parser.add_argument("--smoke", action="store_true", help="tiny networks on the processor; figures mean nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        return child(chosen.child)
    if not chosen.smoke and not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    device, report = "cpu" if chosen.smoke else "cuda", Report()
    started = time.monotonic()
    parts: list[tuple[str, Callable[[], None]]] = []
    if device == "cuda":
        print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
        parts += [
            ("cache", lambda: cached(report, device)),
            ("pinned", lambda: pinned(report)),
            ("processes", lambda: processes(report)),
        ]
        parts += [
            ("inswapper", lambda: swap_net(report, device, "bfloat16", 4)),
            ("inswapper", lambda: swap_net(report, device, "float32", 1)),
            ("flagship", lambda: flagship(report, device, 1024, 4)),
        ]
    else:
        parts += [
            ("inswapper", lambda: swap_net(report, device, "float32", 2)),
            ("flagship", lambda: flagship(report, device, 64, 2)),
        ]
    for name, part in parts:
        try:
            part()
        except Exception as error:
            report.failed = True
            print(f"FAIL {name}: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
            import traceback

            traceback.print_exc()
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        print(f"     {name}: {time.monotonic() - started:.0f} s so far", flush=True)
    print(json.dumps({"torch": torch.__version__, "ok": not report.failed, "lines": report.lines}))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
