"""What the marks cost: time and bytes of the signature for each format, and of the label, as a share of the swap.

The picture is NASA's astronaut portrait enlarged to 4032 × 3024 and to 1280 × 960, swapped by `mesh` and encoded in
each format; the clip is 1280 × 720, five seconds. Times are the least of five (the clip's swap is one). The share is of
the whole swap by `mesh`, the fastest engine there is, so of any other it is less. Validation by the library's reader is
timed for comparison.
"""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, get_args

import cv2
import numpy as np
from c2pa import Context, Reader, Settings
from matplotlib import cbook
from skimage import data

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.image import ImageLimits, OutputFormat, encode
from nanoswap.pipelines.label import Label
from nanoswap.pipelines.mark import ClipSeal, Marks, mark_picture
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.provenance import Signer
from nanoswap.pipelines.swap import SwapOptions, swap_image
from nanoswap.pipelines.swap_clip import ClipOptions, open_swap
from nanoswap.pipelines.yuv import Colour
from nanoswap.serve.development_certificate import development_certificate
from tests.clips import Recipe, Scene, make
from tests.corpus import HOPPER

SIZES = ((4032, 3024), (1280, 960))
ROUNDS = 5


def least(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    took = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took) * 1000


def check(media_type: str, made: bytes | bytearray) -> str:
    settings = Settings.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    with Context(settings) as context, Reader(media_type, BytesIO(made), context=context) as reader:
        return str(reader.get_validation_state())


def pictures(signer: Signer) -> None:
    engine = MeshEngine()
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        source = file.read()
    print(f"{'picture':<20}{'MB':>6}{'swap ms':>9}{'mark ms':>9}{'share':>8}{'bytes':>7}{'read ms':>9}")
    for width, height in SIZES:
        rgb = cv2.resize(data.astronaut()[:384], (width, height), interpolation=cv2.INTER_CUBIC)
        target = bytes(encode(np.asarray(rgb, np.uint8), "jpeg", 90))
        for format in get_args(OutputFormat):
            options = SwapOptions(format=format)
            swapped: list[bytearray] = []

            def swap(
                options: SwapOptions = options, swapped: list[bytearray] = swapped, target: bytes = target
            ) -> None:
                cancel = CancelToken()
                made = swap_image(
                    engine,
                    source,
                    target,
                    options,
                    ImageLimits(),
                    cancel=cancel,
                    report=lambda *_: None,
                    marks=Marks(),
                    gate=None,
                )
                swapped[:] = [made.data]

            whole = least(swap)
            copies = [bytearray(swapped[0]) for _ in range(ROUNDS)]
            made: list[bytearray] = []
            took = least(lambda: made.append(mark_picture(copies.pop(), format, "mesh", signer)))  # noqa: B023
            reading = least(lambda: check(f"image/{format}", made[-1]))  # noqa: B023
            assert check(f"image/{format}", made[-1]) == "Valid"
            more, size = len(made[-1]) - len(swapped[0]), len(swapped[0]) / 1e6
            name = f"{width}x{height} {format}"
            print(f"{name:<20}{size:>6.1f}{whole:>9.0f}{took:>9.1f}{took / whole:>8.1%}{more:>7}{reading:>9.1f}")
        label = least(lambda: Label.of(width, height).draw(rgb))  # noqa: B023
        print(f"{f'{width}x{height} label':<20}{'':>6}{'':>9}{label:>9.2f}")


def clip(signer: Signer) -> None:
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        source = file.read()
    target = make(Recipe(Scene([HOPPER], width=1280, height=720), frames=125))
    made: list[list[bytes]] = []

    def swap() -> None:
        job = open_swap(
            MeshEngine(), source, target, ClipOptions(), ClipLimits(), ImageLimits(), Encoder(), cancel=CancelToken(),
            report=lambda *_: None, gate=None,
        )  # fmt: skip
        made.append(list(job))
        job.close()

    started = time.perf_counter()
    swap()
    whole = (time.perf_counter() - started) * 1000
    box: list[bytes] = []

    def seal() -> None:
        own = ClipSeal("mesh", signer)
        for part in made[0]:
            own.update(part)
        box.append(own.box())

    took, data = least(seal), b"".join(made[0])
    assert check("video/mp4", data + box[-1]) == "Valid"
    last = least(lambda: ClipSeal("mesh", signer).box())
    print(
        f"\n1280x720 clip, 125 frames, {len(data) / 1e6:.1f} MB, swap {whole:.0f} ms: hash and signature {took:.1f} ms"
    )
    print(f"  {took / whole:.2%} of it, of which the signature {last:.1f} ms; {len(box[-1])} bytes more")
    plain = least(lambda: hashlib.sha256(data).digest())
    print(f"SHA-256 alone, for comparison: {plain:.1f} ms")
    label = Label.of(1920, 1088).on_frames(Colour())
    frame = Frame(np.zeros((1088 * 3 // 2, 1920), np.uint8))
    print(f"label on one frame of 1920x1088: {least(lambda: label.draw(frame)) * 1000:.0f} us")


def main() -> None:
    signer = Signer(*development_certificate(datetime.now(UTC) - timedelta(minutes=1)))
    pictures(signer)
    clip(signer)


if __name__ == "__main__":
    main()
