"""A whole swap with the mesh engine on the two test photographs: it must look like one, by numbers."""

from collections.abc import Sequence
from io import BytesIO

import cv2
import numpy as np
import pytest
from matplotlib import cbook
from PIL import Image
from skimage import data

from nanoswap.pipelines import swap as swap_module
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Pair, Request, Source
from nanoswap.pipelines.errors import Cancelled, ContentRefused, ManyFaces, NoFace, UnknownFace
from nanoswap.pipelines.face import Face, overlap
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.image import ImageLimits
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.swap import SwapOptions, Swapped, find_faces, swap_image
from tests.stand_ins.gate import CYAN, MAGENTA

ENGINE = MeshEngine()
LIMITS = ImageLimits()
ASTRONAUT = np.ascontiguousarray(data.astronaut())
with cbook.get_sample_data("grace_hopper.jpg") as _file:
    HOPPER = np.ascontiguousarray(np.asarray(Image.open(_file).convert("RGB")))
PAIRS = {"hopper to astronaut": (HOPPER, ASTRONAUT), "astronaut to hopper": (ASTRONAUT, HOPPER)}


def png(rgb: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=1)
    return out.getvalue()


def run(source: np.ndarray, target: np.ndarray, **options: object) -> tuple[Swapped, np.ndarray]:
    stages: list[str] = []
    done = swap_image(
        ENGINE, png(source), png(target), SwapOptions(format="png", **options), LIMITS,  # type: ignore[arg-type]
        gate=None, cancel=CancelToken(), report=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    assert list(dict.fromkeys(stages)) == ["decode", "detect", "swap", "encode"]
    return done, np.asarray(Image.open(BytesIO(bytes(done.data))))


def canonical(rgb: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The inner face upright in 96 px, grey, zero mean and unit contrast: what makes a face look like somebody."""
    eyes = np.float32([[30, 34], [66, 34], [48, 78]])
    mouth = points[3:5].mean(0)
    crop = cv2.warpAffine(rgb, cv2.getAffineTransform(np.float32([points[0], points[1], mouth]), eyes), (96, 96))
    grey = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2)[22:90, 14:82]
    return (grey - grey.mean()) / grey.std()


@pytest.mark.parametrize("name", list(PAIRS))
def test_result_looks_like_the_source_in_the_targets_light(name: str) -> None:
    source, target = PAIRS[name]
    (giver,), (taker,) = ENGINE.detect(source), ENGINE.detect(target)
    done, result = run(source, target)
    assert done.faces == 1
    after = canonical(result, taker.points)
    theirs = canonical(source, giver.points)
    before, now = (float((face * theirs).mean()) for face in (canonical(target, taker.points), after))
    assert now > before + 0.1, (before, now)
    x0, y0, x1, y1 = taker.box.astype(int)
    cheeks = (slice(y0 + (y1 - y0) // 2, y0 + 2 * (y1 - y0) // 3), slice(x0 + (x1 - x0) // 4, x1 - (x1 - x0) // 4))
    tone = np.abs(result[cheeks].reshape(-1, 3).mean(0) - target[cheeks].reshape(-1, 3).mean(0))
    assert tone.max() < 30, "skin tone is off"


@pytest.mark.parametrize("name", list(PAIRS))
def test_nothing_but_the_face_is_touched_and_no_seam_shows(name: str) -> None:
    source, target = PAIRS[name]
    (taker,) = ENGINE.detect(target)
    _, result = run(source, target)
    change = np.abs(result.astype(int) - target).max(2)
    x0, y0, x1, y1 = taker.box
    margin = 0.35 * (x1 - x0)
    inside = np.zeros(change.shape, bool)
    inside[max(0, int(y0 - margin)) : int(y1 + margin), max(0, int(x0 - margin)) : int(x1 + margin)] = True
    assert not change[~inside].any()
    assert (change[inside] > 20).mean() > 0.1
    # Along the border of what changed, the change itself must rise softly.
    border = (change > 0).astype(np.uint8)
    ring = (border - cv2.erode(border, np.ones((3, 3), np.uint8))).astype(bool)
    assert np.percentile(change[ring], 95) < 16


def group() -> np.ndarray:
    picture = np.full((640, 1080, 3), 190, np.uint8)
    picture[20 : 20 + HOPPER.shape[0], 10 : 10 + HOPPER.shape[1]] = HOPPER
    picture[90:602, 550:1062] = ASTRONAUT
    return picture


def test_faces_are_chosen_by_id_and_ids_survive_another_encoding() -> None:
    target = group()
    found = find_faces(ENGINE, png(target), LIMITS)
    assert len(found.faces) == 2
    jpeg = BytesIO()
    Image.fromarray(target).save(jpeg, "JPEG", quality=85)
    again = find_faces(ENGINE, jpeg.getvalue(), LIMITS)
    for face in again.faces:
        assert max(overlap(face.box, other.box) for other in found.faces) > 0.5
    right = max(again.faces, key=lambda face: face.box[0])
    done, result = run(HOPPER, target, faces=(right.id,))
    assert done.faces == 1
    change = np.abs(result.astype(int) - target).max(2)
    assert not change[:, :540].any()
    assert change[:, 540:].max() > 50
    everyone, _ = run(HOPPER, target)
    assert everyone.faces == 2
    largest, _ = run(HOPPER, target, faces="largest")
    assert largest.faces == 1


def test_missing_and_ambiguous_faces_are_said() -> None:
    empty = np.full((300, 300, 3), 128, np.uint8)
    with pytest.raises(NoFace, match="target"):
        run(HOPPER, empty)
    with pytest.raises(NoFace, match="source"):
        run(empty, HOPPER)
    with pytest.raises(ManyFaces):
        run(group(), HOPPER)
    with pytest.raises(UnknownFace):
        run(HOPPER, ASTRONAUT, faces=("f0000000000010001",))
    chosen = find_faces(ENGINE, png(group()), LIMITS).faces[0]
    assert run(group(), HOPPER, source_face=chosen.id)[0].faces == 1


@pytest.mark.parametrize("at", ["decode", "detect", "swap", "encode"])
def test_cancel_is_heard_at_every_stage(at: str) -> None:
    cancel = CancelToken()

    def report(stage: str, done: int, total: int) -> None:
        if stage == at:
            cancel.cancel()

    with pytest.raises(Cancelled):
        swap_image(ENGINE, png(HOPPER), png(ASTRONAUT), SwapOptions(), LIMITS, gate=None, cancel=cancel, report=report)


def test_decoded_pictures_are_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    from nanoswap.pipelines import swap as module

    held: list[np.ndarray] = []
    real = module.decode

    def decode(encoded: bytes, limits: ImageLimits) -> np.ndarray:
        held.append(real(encoded, limits))
        return held[-1]

    monkeypatch.setattr(module, "decode", decode)
    run(HOPPER, ASTRONAUT)
    with pytest.raises(UnknownFace):
        run(HOPPER, ASTRONAUT, faces=("f0000000000010001",))
    assert len(held) == 4
    assert not any(rgb.any() for rgb in held)


@pytest.mark.parametrize("late", ["engine", "gate"])
def test_result_is_overwritten_when_what_comes_behind_it_fails(monkeypatch: pytest.MonkeyPatch, late: str) -> None:
    rinsed: list[str] = []
    kept: list[bytearray] = []

    def rinse(name: str) -> None:
        rinsed.append(name)
        if name == late:
            raise RuntimeError(name)

    class Broken(MeshEngine):
        def rinse(self) -> None:
            rinse("engine")

    class Open:
        def check_content(self, rgb: np.ndarray, faces: Sequence[Face]) -> None:
            pass

        check_ages = check_content

        def rinse(self) -> None:
            rinse("gate")

    encode = swap_module.encode
    monkeypatch.setattr(swap_module, "encode", lambda *given: kept.append(encode(*given)) or kept[0])
    with pytest.raises(RuntimeError, match=late):
        gated(Open(), Broken(), HOPPER, ASTRONAUT)
    assert rinsed == ["engine", "gate"]
    assert len(kept[0]) > 1000
    assert not any(kept[0])


class Painter(MeshEngine):
    """Counts the faces that it is told to paint, and paints below them in `colour`."""

    def __init__(self, colour: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.colour = colour
        self.painted = 0
        self.learned: list[Source] = []

    def prepare(self, rgb: np.ndarray, face: Face) -> Source:
        self.learned.append(super().prepare(rgb, face))
        return self.learned[-1]

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        self.painted += len(pairs)
        touched = super().swap(pairs, source, request)
        if self.colour is not None:
            pairs[0][0][-80:] = self.colour
        return touched


def dressed(rgb: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The picture with a stripe below, which leaves its face alone."""
    changed = rgb.copy()
    changed[-80:] = colour
    return changed


def young(rgb: np.ndarray, face: Face | None = None) -> np.ndarray:
    """The picture with cyan on a face's chin, which is still found."""
    changed = rgb.copy()
    x0, _, x1, y1 = (face or ENGINE.detect(rgb)[0]).box
    cv2.circle(changed, (int((x0 + x1) / 2), int(y1)), int((x1 - x0) / 5), CYAN, -1)
    return changed


def gated(gate: Gate, engine: MeshEngine, source: np.ndarray, target: np.ndarray, **options: object) -> Swapped:
    return swap_image(
        engine, png(source), png(target), SwapOptions(format="png", **options), LIMITS,  # type: ignore[arg-type]
        gate=gate, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip


REFUSED = {
    "intimate source": (dressed(HOPPER, MAGENTA), ASTRONAUT, None),
    "young source": (young(HOPPER), ASTRONAUT, None),
    "intimate target": (HOPPER, dressed(ASTRONAUT, MAGENTA), None),
    "young target": (HOPPER, young(ASTRONAUT), None),
    "intimate result": (HOPPER, ASTRONAUT, MAGENTA),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_gate_refuses_before_anything_is_painted_and_nothing_is_left(
    gate: Gate, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nanoswap.pipelines import swap as module

    source, target, colour = REFUSED[name]
    engine, held, wiped = Painter(colour), [], []
    real = module.decode

    def decode(encoded: bytes, limits: ImageLimits) -> np.ndarray:
        held.append(real(encoded, limits))
        return held[-1]

    monkeypatch.setattr(module, "decode", decode)
    monkeypatch.setattr(
        type(ENGINE.prepare(HOPPER, ENGINE.detect(HOPPER)[0])), "wipe", lambda source: wiped.append(source)
    )
    with pytest.raises(ContentRefused):
        gated(gate, engine, source, target)
    # What the result shows is known only when it is there; nobody is given it.
    assert engine.painted == (1 if name == "intimate result" else 0)
    # A source that is refused isn't even learned.
    assert bool(engine.learned) == ("source" not in name)
    assert [id(source) for source in wiped] == [id(source) for source in engine.learned]
    assert len(held) == 2
    assert not any(rgb.any() for rgb in held)


def test_gate_lets_others_through_unchanged(gate: Gate) -> None:
    without, _ = run(HOPPER, ASTRONAUT)
    assert gated(gate, Painter(), HOPPER, ASTRONAUT).data == without.data


def test_age_is_asked_of_those_who_would_be_swapped_only(gate: Gate) -> None:
    adult, child = sorted(ENGINE.detect(group()), key=lambda face: face.box[0])
    target = young(group(), child)
    assert gated(gate, ENGINE, HOPPER, target, faces=(adult.id,)).faces == 1
    for faces in ("all", (child.id,), (adult.id, child.id)):
        with pytest.raises(ContentRefused):
            gated(gate, ENGINE, HOPPER, target, faces=faces)


def test_looking_for_faces_is_no_swap() -> None:
    assert len(find_faces(ENGINE, png(young(HOPPER)), LIMITS).faces) == 1
