"""A process that swaps once, and says by keys (`nanoswap.serve.needles`) what its libraries were given and gave:
whoever started it looks for that in its memory.

``python -m tests.remnants MODELS ENGINE OUTCOME [WORD …]`` does both and prints what it found. Before the swap that is
looked for another one is made, with other people's pixels: libraries are warm, and what both swaps have in common
(masks, the prompt) is nobody's. The process is started as the service's replicas are, and does as they do: the work is
done in a thread of its own, whose stack is wiped behind it.

outcome  success, error (the last step fails), cancel (as soon as the engine paints), clip.
words    leak: a list keeps a crop. plain: no end of the job is told to the engine. torch: the swap network runs in it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from nanoswap.serve.needles import Keys, Needles, window_keys
from nanoswap.serve.process_memory import Unread, chunks
from nanoswap.serve.volatility import FREED_MEMORY

OUTCOMES: Final = ("success", "error", "cancel", "clip")
_RUN: Final = 4080  # bytes, a multiple of the needles' stride, that are taken together of what is too long
_WHOLE: Final = ("upload", "pixels made", "result", "result made")
_CV2: Final = ("cvtColor", "flip", "remap", "resize", "rotate", "warpAffine", "GaussianBlur")


# The side that looks


def left(models: Path, engine: str, outcome: str, *words: str) -> tuple[dict[str, int], dict[str, int]]:
    """About how many bytes are left in the process after its swap, by what they are of (`Needles.count`); and for how
    many windows of each was looked."""
    command = [sys.executable, "-m", "tests.remnants", str(models), engine, outcome, *words, "child"]
    whole = {**os.environ, **FREED_MEMORY}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=whole) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            size = int(child.stdout.readline() or b"0")
            if not size:
                raise RuntimeError("the process that swaps has failed")
            with np.load(io.BytesIO(child.stdout.read(size))) as said:
                keys = {name: said[name] for name in said.files}
            found = in_memory(child.pid, Needles.of(keys))
        finally:
            with suppress(BrokenPipeError):
                child.stdin.write(b"\n")
                child.stdin.flush()
    return found, {name: len(each) for name, each in keys.items()}


def in_memory(pid: int, needles: Needles) -> dict[str, int]:
    """About how many bytes of each needle are in a process' memory; nothing of those that aren't there."""
    keys = [needles.keys_in(piece) for piece in chunks(pid, Unread())]
    return needles.count(np.concatenate(keys)) if keys else {}


# The side that swaps


class Ear:
    """Hears arrays and tensors, of which it keeps keys."""

    def __init__(self) -> None:
        self.heard: dict[str, list[Keys]] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, value: Any) -> None:
        if hasattr(value, "detach"):
            value = value.detach().contiguous().reshape(-1)
            import torch

            value = value.view(torch.int16).numpy() if value.dtype is torch.bfloat16 else value.cpu().numpy()
        if isinstance(value, bytes | bytearray) or getattr(value, "size", 0) * getattr(value, "itemsize", 0) >= 256:
            keys = keys_of(value, 2**22 if name in _WHOLE else 2**17)
            with self._lock:
                self.heard.setdefault(name, []).append(keys)

    def taken(self) -> dict[str, Keys]:
        heard, self.heard = self.heard, {}
        return {name: np.unique(np.concatenate(each)) for name, each in heard.items()}

    def around(self, owner: Any, name: str, what: str, *, given: bool = True, after: bool = False) -> None:
        """Hear the arguments and the results of a function. after: what has become of the arguments."""
        plain: Callable[..., Any] = getattr(owner, name)

        def heard(*args: Any, **named: Any) -> Any:
            for each in (*args, *named.values()) if given and not after else ():
                self.each(f"{what} given", each)
            made = plain(*args, **named)
            for each in args if after else ():
                self.each(f"{what} filled", each)
            self.each(f"{what} made", made)
            return made

        setattr(owner, name, heard)

    def each(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray | bytearray) or hasattr(value, "detach"):
            self(name, value)
        elif hasattr(value, "pts") and isinstance(getattr(value, "data", None), np.ndarray):
            self(name, value.data)
        elif isinstance(value, Mapping):
            for one in value.values():
                self.each(name, one)
        elif isinstance(value, list | tuple):
            for one in value:
                self.each(name, one)


def keys_of(value: np.ndarray | bytes | bytearray, most: int) -> Keys:
    """Of more than ``most`` bytes runs from all over are taken."""
    data = np.frombuffer(value, np.uint8) if isinstance(value, bytes | bytearray) else value
    flat = np.ascontiguousarray(data).reshape(-1)
    if flat.nbytes <= most:
        return window_keys(flat)
    run = _RUN // flat.itemsize
    starts = np.linspace(0, len(flat) - run, most // _RUN).astype(np.int64)
    return np.unique(np.concatenate([window_keys(flat[at : at + run]) for at in starts]))


def textured(name: str, seed: int) -> np.ndarray:
    """A person's picture with noise on it, so that no two windows of it are alike."""
    from tests.clips import portrait

    rgb = portrait(name) * 0.85 + np.random.default_rng(seed).uniform(8, 30, portrait(name).shape)
    return np.asarray(rgb, np.uint8)


def listen(ear: Ear, engine: Any) -> None:
    import cv2

    from nanoswap.pipelines import image, swap, swap_clip

    for name in _CV2:
        ear.around(cv2, name, f"OpenCV {name}", given=False)
    for module in (swap, swap_clip):
        ear.around(module, "decode", "pixels", given=False)
    ear.around(swap, "encode", "result")
    ear.around(image.simplejpeg, "encode_jpeg", "encoder")
    with suppress(ImportError):
        from nanoswap.pipelines import blob, onnx_net, swap_net_onnx

        ear.around(onnx_net.OnnxNet, "_forward", "forward")
        ear.around(swap_net_onnx, "to_blob", "crop")
        ear.around(blob, "to_blob", "crop")
        ear.around(swap_net_onnx, "from_blob", "painted")
    from nanoswap.pipelines.classifier import Classifier
    from nanoswap.pipelines.frame import FramePool
    from nanoswap.pipelines.reader import Reader

    ear.around(Classifier, "__call__", "gate")
    ear.around(FramePool, "give", "frame painted")
    ear.around(Reader, "_fill", "frame", after=True)
    from nanoswap.pipelines.neural import NeuralSource

    ear.around(NeuralSource, "__init__", "identity")
    networks = [each for each in vars(engine).values() if hasattr(each, "components")]
    modules = [part for pipe in networks for part in pipe.components.values() if hasattr(part, "named_modules")]
    if hasattr(engine, "_steps"):
        from nanoswap.pipelines.denoiser import Denoiser, Denoising
        from nanoswap.pipelines.identity import Identity
        from nanoswap.pipelines.latents import Autoencoder

        ear.around(Autoencoder, "encode", "autoencoder")
        ear.around(Autoencoder, "decode", "autoencoder")
        ear.around(Identity, "__call__", "tokens")
        ear.around(Denoiser, "_predict", "denoiser")
        ear.around(Denoising, "__init__", "job")
        nets = engine._nets
        modules += [nets.autoencoder._vae, nets.denoiser._parts.unet, nets.denoiser._parts.identity_net]
        modules += [nets.identity._resampler]
    if hasattr(engine, "_nets") and hasattr(engine._nets, "swapper"):
        painter = getattr(engine._nets.swapper, "_net", None)
        if hasattr(painter, "_latent"):
            ear.around(type(painter), "_run", "torch swapper")
            modules.append(painter._net)
    for module in modules:
        for name, leaf in module.named_modules():
            if not list(leaf.children()):
                leaf.register_forward_hook(lambda _, given, made, name=name: ear.each(f"layer {name}", made))


def pictures(seed: int) -> tuple[bytearray, bytearray]:
    from nanoswap.pipelines.image import encode

    return encode(textured("hopper", seed), "jpeg", 92), encode(textured("astronaut", seed + 1), "png", 92)


def swap_picture(engine: Any, gate: Any, seed: int, outcome: str, ear: Ear | None) -> None:
    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.image import ImageLimits
    from nanoswap.pipelines.swap import SwapOptions, swap_image

    source, target = pictures(seed)
    if ear is not None:
        ear("upload", source)
        ear("upload", target)
    cancel = CancelToken()

    def report(stage: str, done: int, total: int) -> None:
        if stage == "encode" and outcome == "error":
            raise RuntimeError("as if the last step had failed")
        if stage == "swap" and outcome == "cancel":
            cancel.cancel()

    made = None
    with suppress(RuntimeError, *_cancelled()):
        made = swap_image(engine, source, target, SwapOptions(), ImageLimits(), gate=gate, cancel=cancel, report=report)
        assert outcome == "success", f"a swap that was to end in {outcome} has a result"
    for each in (source, target, *([made.data] if made else [])):
        each[:] = bytes(len(each))


def _cancelled() -> tuple[type[Exception], ...]:
    from nanoswap.pipelines.errors import Cancelled

    return (Cancelled,)


def swap_clip(engine: Any, gate: Any, seed: int, ear: Ear | None) -> None:
    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.clip import ClipLimits
    from nanoswap.pipelines.image import ImageLimits
    from nanoswap.pipelines.mp4 import Encoder
    from nanoswap.pipelines.swap_clip import ClipOptions, open_swap

    source, target = pictures(seed)[0], moving(seed)
    if ear is not None:
        ear("upload", source)
        ear("upload", target)
    swap = open_swap(
        engine, source, target, ClipOptions(), ClipLimits(), ImageLimits(), Encoder(preset="ultrafast", crf=12),
        gate=gate, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    for part in swap:
        if ear is not None:
            ear("result", part)
        del part
    swap.close()
    for each in (source, target):
        each[:] = bytes(len(each))


def moving(seed: int) -> bytearray:
    """A clip of a textured head that moves: half a second, nearly without loss, so that noise stays noise."""
    import av

    picture, sink = textured("astronaut", seed + 1), io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        video = out.add_stream("libx264", 24, width=480, height=480, pix_fmt="yuv420p")
        video.options = {"crf": "4", "preset": "ultrafast"}
        for at in range(12):
            rgb = np.ascontiguousarray(picture[at : at + 480, 2 * at : 2 * at + 480])
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(video.encode())
    return bytearray(sink.getbuffer())


@contextmanager
def leaking(words: list[str]) -> Iterator[None]:
    if "leak" in words:
        from nanoswap.pipelines import align

        kept: list[np.ndarray] = []
        plain = align.cv2.warpAffine

        def keeping(*args: Any, **named: Any) -> Any:
            made = plain(*args, **named)
            kept.append(made.copy())
            return made

        align.cv2.warpAffine = keeping
        globals()["_kept"] = kept
    yield


def child(folder: str, name: str, outcome: str, words: list[str]) -> None:
    import warnings

    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    from nanoswap.pipelines.engines import load_engine
    from nanoswap.pipelines.gate_load import load_gate
    from nanoswap.pipelines.manifest import Manifest
    from nanoswap.pipelines.model_store import ModelStore
    from nanoswap.pipelines.process import give_back_memory, prepare_process
    from nanoswap.pipelines.runtime import Runtime
    from nanoswap.pipelines.style import Style
    from nanoswap.pipelines.window import Batching
    from nanoswap.serve.pixel_thread import then_wiping_the_stack
    from tests.inswapper_onnx import build

    class Published(ModelStore):
        """torch reads inswapper's own graph and no stand-in."""

        def read(self, name: str) -> bytes:
            return build() if name.startswith("inswapper") else super().read(name)

    manifest = Manifest.read(Path(folder) / "models.toml")
    runtime = Runtime(threads=2, batching=Batching(most=16, wait=0.0), swapper="torch" if "torch" in words else "onnx")
    store = (Published if "torch" in words else ModelStore)(Path(folder), manifest)
    gate, engine = load_gate(manifest, store, runtime), cast(Any, load_engine(name, manifest, store, runtime, Style()))
    if "plain" in words:
        engine.rinse = lambda: None
    if outcome == "clip":
        prepare_process()
    ear = Ear()
    with leaking(words), ThreadPoolExecutor(1) as threads:
        listen(ear, engine)
        found = []
        for seed in (100, 200):
            if outcome == "clip":
                work = partial(swap_clip, engine, gate, seed, ear)
            else:
                work = partial(swap_picture, engine, gate, seed, outcome if seed == 200 else "success", ear)
            threads.submit(then_wiping_the_stack(work)).result()
            found.append(ear.taken())
        common = np.unique(np.concatenate([np.zeros(1, np.uint64), *found[0].values()]))
        keys = {
            each: mine[common[np.searchsorted(common, mine) % len(common)] != mine] for each, mine in found[1].items()
        }
        if outcome == "clip":
            give_back_memory()  # as `serve/video_swap.py`
        sink = io.BytesIO()
        np.savez(sink, **keys)
        data = sink.getvalue()
        out.write(b"%d\n" % len(data))
        out.write(data)
        out.flush()
        sys.stdin.readline()  # with the thread still there, as a replica's is


def main() -> None:
    folder, name, outcome, *words = sys.argv[1:]
    if "child" in words:
        child(folder, name, outcome, words)
        return
    found, known = left(Path(folder), name, outcome, *words)
    print(name, outcome, *words, f"{sum(known.values())} windows of {len(known)} kinds", sep=", ")
    for what, count in sorted(found.items(), key=lambda each: -each[1]):
        print(f"{count:>10} bytes of {what}")


if __name__ == "__main__":
    main()
