"""A process that swaps once, and says by hashes what its libraries were given and gave: whoever started it looks for
that in its memory.

``python -m tests.remnants MODELS ENGINE OUTCOME [WORD …]`` writes the hashes (npz) to stdout and then waits for a line.
Before the swap that is looked for another one is made, with other people's pixels: libraries are warm, and what both
swaps have in common (masks, the prompt) is nobody's.

outcome  success, error (the last step fails), cancel (as soon as the engine paints), clip.
words    leak: a list keeps a crop. plain: no end of the job is told to the engine.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from tests import memory

#: What the service's processes are started with.
RECIPE: Final = {
    "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
    "PYTHONMALLOC": "malloc",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}
OUTCOMES: Final = ("success", "error", "cancel", "clip")
_WHOLE: Final = ("upload", "pixels made", "result", "result made")
_CV2: Final = ("cvtColor", "flip", "remap", "resize", "rotate", "warpAffine", "GaussianBlur")


# The side that looks


def left(
    models: Path, engine: str, outcome: str, *words: str, environment: Mapping[str, str] = RECIPE
) -> tuple[dict[str, int], dict[str, int]]:
    """What is left in the process after its swap, by what it is of (`memory.remnants`); and for how many windows of
    each was looked."""
    command = [sys.executable, "-m", "tests.remnants", str(models), engine, outcome, *words]
    whole = {**os.environ, **environment}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=whole) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            size = int(child.stdout.readline() or b"0")
            if not size:
                raise RuntimeError("the process that swaps has failed")
            with np.load(io.BytesIO(child.stdout.read(size))) as said:
                hashes = {name: said[name] for name in said.files}
            found = memory.remnants(child.pid, memory.Needles(hashes))
            if os.environ.get("PLACES"):
                print(memory.places(child.pid, memory.Needles(hashes)), file=sys.stderr)
        finally:
            with suppress(BrokenPipeError):
                child.stdin.write(b"\n")
                child.stdin.flush()
    return found, {name: len(each) for name, each in hashes.items()}


# The side that swaps


class Ear:
    """Hears arrays and tensors, of which it keeps hashes."""

    def __init__(self) -> None:
        self.heard: dict[str, list[memory.Hashes]] = {}
        self._lock = threading.Lock()

    def __call__(self, name: str, value: Any) -> None:
        if hasattr(value, "detach"):
            value = value.detach().contiguous().reshape(-1)
            import torch

            value = value.view(torch.int16).numpy() if value.dtype is torch.bfloat16 else value.cpu().numpy()
        if isinstance(value, bytes | bytearray) or getattr(value, "size", 0) * getattr(value, "itemsize", 0) >= 256:
            hashes = memory.windows(value, 2**22 if name in _WHOLE else 2**17)
            with self._lock:
                self.heard.setdefault(name, []).append(hashes)

    def taken(self) -> dict[str, memory.Hashes]:
        heard, self.heard = self.heard, {}
        return {name: np.concatenate(each) for name, each in heard.items()}

    def around(self, owner: Any, name: str, what: str, *, given: bool = True) -> None:
        """Hear the arguments and the results of a function."""
        plain: Callable[..., Any] = getattr(owner, name)

        def heard(*args: Any, **named: Any) -> Any:
            for each in (*args, *named.values()) if given else ():
                self.each(f"{what} given", each)
            made = plain(*args, **named)
            self.each(f"{what} made", made)
            return made

        setattr(owner, name, heard)

    def each(self, name: str, value: Any) -> None:
        if isinstance(value, np.ndarray | bytearray) or hasattr(value, "detach"):
            self(name, value)
        elif isinstance(value, Mapping):
            for one in value.values():
                self.each(name, one)
        elif isinstance(value, list | tuple):
            for one in value:
                self.each(name, one)


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


def swap_picture(engine: Any, seed: int, outcome: str, ear: Ear | None) -> None:
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
        made = swap_image(engine, source, target, SwapOptions(), ImageLimits(), cancel=cancel, report=report)
        assert outcome == "success", f"a swap that was to end in {outcome} has a result"
    for each in (source, target, *([made.data] if made else [])):
        each[:] = bytes(len(each))


def _cancelled() -> tuple[type[Exception], ...]:
    from nanoswap.pipelines.errors import Cancelled

    return (Cancelled,)


def swap_clip(engine: Any, seed: int, ear: Ear | None) -> None:
    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.clip import ClipLimits
    from nanoswap.pipelines.image import ImageLimits
    from nanoswap.pipelines.mp4 import Encoder
    from nanoswap.pipelines.swap_clip import ClipOptions, open_swap

    source = pictures(seed)[0]
    target = bytearray(Path(os.environ["REMNANTS_CLIP"]).read_bytes())
    if ear is not None:
        ear("upload", source)
    swap = open_swap(
        engine, source, target, ClipOptions(), ClipLimits(), ImageLimits(), Encoder(preset="ultrafast"),
        cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    for part in swap:
        if ear is not None:
            ear("result", part)
        del part
    swap.close()
    for each in (source, target):
        each[:] = bytes(len(each))


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


def main() -> None:
    import warnings

    warnings.simplefilter("ignore")
    folder, name, outcome, *words = sys.argv[1:]
    out = sys.stdout.buffer
    from nanoswap.pipelines.engines import load_engine
    from nanoswap.pipelines.manifest import Manifest
    from nanoswap.pipelines.model_store import ModelStore
    from nanoswap.pipelines.runtime import Runtime
    from nanoswap.pipelines.style import Style
    from nanoswap.pipelines.window import Batching

    manifest = Manifest.read(Path(folder) / "models.toml")
    runtime = Runtime(threads=2, batching=Batching(most=16, wait=0.0))
    engine: Any = load_engine(name, manifest, ModelStore(Path(folder), manifest), runtime, Style())
    if "plain" in words:
        engine.rinse = lambda: None
    ear = Ear()
    with leaking(words):
        listen(ear, engine)
        found = []
        for seed in (100, 200):
            if outcome == "clip":
                swap_clip(engine, seed, ear)
            else:
                swap_picture(engine, seed, outcome if seed == 200 else "success", ear)
            found.append(ear.taken())
    hashes = memory.without(found[1], found[0].values())
    sink = io.BytesIO()
    np.savez(sink, **hashes)
    data = sink.getvalue()
    out.write(b"%d\n" % len(data))
    out.write(data)
    out.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    main()
