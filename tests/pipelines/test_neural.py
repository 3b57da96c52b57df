"""The engine of networks on stand-in files: it swaps as insightface does, many at once, nobody in another's face."""

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.inswapper import INSwapper
from insightface.model_zoo.landmark import Landmark
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils import face_align

from nanoswap.pipelines.align import cut, to_crop
from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
from nanoswap.pipelines.blob import Scaling, to_blob
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Request
from nanoswap.pipelines.engines import EngineUnknown, EngineUnusable, check_engine, load_engine
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.image import ImageLimits, decode
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import ModelCorrupt, ModelError, ModelMissing, ModelStore
from nanoswap.pipelines.neural import NeuralEngine, NeuralSource
from nanoswap.pipelines.onnx_net import NotSelfContained, OnnxNet
from nanoswap.pipelines.runtime import DeviceMissing, Runtime
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.swap import SwapOptions, swap_image
from nanoswap.pipelines.swap_net_onnx import OnnxSwapNet, find_projection, project
from nanoswap.pipelines.tiles import split
from nanoswap.pipelines.window import Batching
from tests.clips import portrait
from tests.serve.conftest import jpeg
from tests.stand_ins.people import people
from tests.stand_ins.swapper import swapper

pytestmark = pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")

ALL = ("2d106det", "xseg_1", "gfpgan_1_4")
REQUEST = Request(CancelToken())
ONE = Runtime(threads=1, batching=Batching(most=16, wait=0.0))


def engine(
    models: Path,
    style: Style | None = None,
    name: str = "inswapper",
    uses: tuple[str, ...] = (),
    runtime: Runtime = ONE,
) -> NeuralEngine:
    """`uses`: optional models that it takes."""
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    store.has = lambda model: model in uses  # type: ignore[method-assign]
    made = load_engine(name, manifest, store, runtime, style or Style())
    assert isinstance(made, NeuralEngine)
    return made


def session(models: Path, file: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(models / file), providers=["CPUExecutionProvider"])


def crowd() -> np.ndarray:
    """Both people, twice, side by side: uint8 (1080, 1920, 3)."""
    frame = np.full((1080, 1920, 3), 120, np.uint8)
    for index in range(4):
        picture, _ = people()[index % 2].upright(112 + 6 * index, 480)
        frame[200 + 50 * index :, index * 480 : (index + 1) * 480][:480] = picture
    return frame


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Forwards by the name of the network's first output."""
    seen: Counter[str] = Counter()
    forward = OnnxNet._forward

    def count(self: OnnxNet, *args: object) -> object:
        seen[self.get_outputs()[0].name] += 1
        return forward(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(OnnxNet, "_forward", count)
    return seen


# As insightface does it


def test_faces_are_those_that_insightface_finds(models: Path) -> None:
    theirs = SCRFD(model_file=str(models / "det_10g.onnx"), session=session(models, "det_10g.onnx"))
    theirs.prepare(ctx_id=0, input_size=(640, 640))
    net = OnnxNet((models / "det_10g.onnx").read_bytes(), batching=Batching(most=3, wait=1.0))
    ours = Detector(net)
    # Sides that fit into 640 px to the pixel; of others insightface takes the one side's scale for both.
    pictures = [crowd(), portrait("astronaut"), np.ascontiguousarray(portrait("hopper")[:, 60:435])]
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(ours, pictures))
    assert (net.forwards, net.rows) == (1, 3)
    assert [len(faces) for faces in found] == [4, 1, 1]
    for rgb, faces in zip(pictures, found, strict=True):
        boxes, points = theirs.detect(np.ascontiguousarray(rgb[..., ::-1]), input_size=(640, 640))
        order = sorted(range(len(boxes)), key=lambda i: -float(np.prod(boxes[i, 2:4] - boxes[i, :2])))
        assert np.allclose([face.points for face in faces], points[order], atol=1e-2)
        assert np.allclose([face.box for face in faces], boxes[order, :4], atol=1e-2)
        assert np.allclose([face.score for face in faces], boxes[order, 4], atol=1e-4)


def test_identity_is_the_one_that_insightface_computes(models: Path) -> None:
    theirs = ArcFaceONNX(model_file=str(models / "w600k_r50.onnx"), session=session(models, "w600k_r50.onnx"))
    data = (models / "w600k_r50.onnx").read_bytes()
    ours = Encoder(OnnxNet(data), data)
    frame = crowd()
    faces = engine(models).detect(frame)
    for face, known in zip(faces, ours(frame, faces), strict=True):
        raw = theirs.get(np.ascontiguousarray(frame[..., ::-1]), SimpleNamespace(kps=face.points))
        assert known.embedding is not None
        assert np.allclose(known.embedding, raw / np.linalg.norm(raw), atol=1e-3)


@pytest.mark.parametrize(("width", "height"), [(4000, 2667), (2667, 4000), (6000, 500), (1920, 1080)])
def test_points_are_right_where_a_side_is_cut_to_whole_pixels(models: Path, width: int, height: int) -> None:
    """A white spot near the right end, as the network's square shows it: insightface is up to 36 px off there."""
    ours = Detector(OnnxNet((models / "det_10g.onnx").read_bytes()))
    picture = np.zeros((height, width, 3), np.uint8)
    x, y, half = int(width * 0.95), int(height * 0.6), max(width, height) // 60
    picture[y - half : y + half + 1, x - half : x + half + 1] = 255

    def spot(canvas: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = np.where(canvas[..., 0] > 127)
        there = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
        return np.array([[*(there - 9), *(there + 9), 0.9]], np.float32), np.tile(there, (1, 5, 1)).astype(np.float32)

    ours._scrfd = SimpleNamespace(detect=spot)
    (face,) = ours(picture)
    # To a pixel of the square.
    assert np.abs(face.points - (x + 0.5, y + 0.5)).max() < 0.6 * max(width, height) / 640


def test_landmarks_are_those_of_insightface(models: Path) -> None:
    theirs = Landmark(model_file=str(models / "2d106det.onnx"), session=session(models, "2d106det.onnx"))
    data = (models / "2d106det.onnx").read_bytes()
    ours = Landmarks(OnnxNet(data), data)
    frame = crowd()
    faces = engine(models).detect(frame)
    found = ours([frame] * len(faces), faces)
    for face, points in zip(faces, found, strict=True):

        class Known(dict):  # type: ignore[type-arg]
            bbox = face.box

        assert np.allclose(points, theirs.get(np.ascontiguousarray(frame[..., ::-1]), Known()), atol=0.05)


def test_landmarks_of_a_face_that_the_picture_cuts_off_are_where_they_are_in_the_whole(models: Path) -> None:
    data = (models / "2d106det.onnx").read_bytes()
    ours = Landmarks(OnnxNet(data), data)
    frame = portrait("hopper")
    face = engine(models).detect(frame)[0]
    whole = face.moved(np.ones(2, np.float32), np.full(2, 400, np.float32), (1400, 1400))
    moved = face.moved(np.ones(2, np.float32), np.array([-240, 0], np.float32), face.frame)
    cut_off = replace(moved, box=np.clip(moved.box, 0, 600).astype(np.float32))
    assert cut_off.box[0] == 0
    (there,), (here,) = ours([np.zeros((1400, 1400, 3), np.uint8)], [whole]), ours([frame], [cut_off])
    unit = float(np.hypot(*(face.points[1] - face.points[0])))
    assert np.abs((there - 400) - (here + np.array([240, 0]))).max() < 0.35 * unit
    empty = replace(moved, box=np.zeros(4, np.float32))
    assert np.isfinite(ours([frame], [empty])[0]).all()


def test_every_step_and_the_result_are_insightfaces(models: Path) -> None:
    """Aligned crop, blob, latent, and the pasted picture with the exact mask: at most one level apart."""
    ours = engine(models, Style(exact=True))
    frame, giver = crowd(), portrait("hopper")
    source = ours.prepare(giver, ours.detect(giver)[0])
    faces = ours.detect(frame)
    theirs = INSwapper(model_file=str(models / "inswapper_128.onnx"), session=session(models, "inswapper_128.onnx"))

    known = ours.recognise(giver, ours.detect(giver))[0].embedding
    latent = known @ theirs.emap
    assert np.allclose(source.latent, latent / np.linalg.norm(latent), atol=1e-5)
    for face in faces:
        crop, _ = face_align.norm_crop2(np.ascontiguousarray(frame[..., ::-1]), face.points, 128)
        mine = cut(frame, to_crop(face.points, 128), 128)
        assert np.abs(mine[..., ::-1].astype(int) - crop).max() <= 1
        blob = cv2.dnn.blobFromImage(crop, 1 / 255, (128, 128), (0, 0, 0), swapRB=True)
        assert np.allclose(to_blob(np.ascontiguousarray(crop[None, ..., ::-1]), Scaling()), blob, atol=1e-6)

    expected = np.ascontiguousarray(frame[..., ::-1])
    for face in faces:
        expected = theirs.get(expected, SimpleNamespace(kps=face.points), SimpleNamespace(normed_embedding=known))
    ours.swap([(frame, face) for face in faces], source, REQUEST)
    assert np.abs(frame[..., ::-1].astype(int) - expected).max() <= 1


# Many at once


def test_many_faces_at_once_are_as_one_by_one(models: Path) -> None:
    ours = engine(models)
    source = ours.prepare(portrait("hopper"), ours.detect(portrait("hopper"))[0])
    together, apart = crowd(), crowd()
    faces = ours.detect(together)
    ours.swap([(together, face) for face in faces], source, REQUEST)
    for face in faces:
        ours.swap([(apart, face)], source, REQUEST)
    assert np.abs(together.astype(int) - apart).max() <= 1
    assert (together != crowd()).any()


def test_network_of_many_rows_is_as_of_one(models: Path) -> None:
    net = OnnxSwapNet(OnnxNet((models / "inswapper_128.onnx").read_bytes(), batching=ONE.batching), Scaling())
    raw = OnnxNet((models / "inswapper_128.onnx").read_bytes(), batching=ONE.batching)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (7, 128, 128, 3), dtype=np.uint8)
    latents = rng.standard_normal((7, 512)).astype(np.float32)
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    whole = net(crops, latents).crops
    singles = np.concatenate([net(crops[i : i + 1], latents[i : i + 1]).crops for i in range(7)])
    assert np.abs(whole.astype(int) - singles).max() <= 1
    blob = to_blob(crops, Scaling())
    both = raw.forward(blob, latents)[0]
    alone = np.concatenate([raw.forward(blob[i : i + 1], latents[i : i + 1])[0] for i in range(7)])
    assert raw.batch == 16
    assert np.abs(both - alone).max() <= 1e-3

    # Nobody's face and nobody's identity reaches a neighbour.
    crops[1], latents[1] = 255 - crops[1], -latents[1]
    changed = net(crops, latents).crops
    assert np.array_equal(changed[0], whole[0])
    assert np.array_equal(changed[2:], whole[2:])
    assert not np.array_equal(changed[1], whole[1])


def test_swap_runs_only_the_networks_that_it_needs(models: Path, counted: Counter[str]) -> None:
    ours = engine(models)
    counted.clear()  # the trials of loading
    swapped = swap_image(
        ours, jpeg(portrait("hopper")), jpeg(crowd()), SwapOptions(), ImageLimits(),
        gate=None, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    assert swapped.faces == 4
    # Two pictures are looked at, one person is recognised, four faces are painted in one forward.
    assert counted == {"out1_8": 2, "683": 1, "output": 1}


def test_people_who_come_together_share_a_forward(models: Path, counted: Counter[str]) -> None:
    ours = engine(models, runtime=Runtime(threads=1, batching=Batching(most=4, wait=0.3)))
    pictures = {name: portrait(name) for name in ("astronaut", "hopper")}
    faces = {name: ours.detect(rgb)[0] for name, rgb in pictures.items()}
    sources = {name: ours.prepare(rgb, faces[name]) for name, rgb in pictures.items()}
    jobs = [(taker, giver) for taker in pictures for giver in pictures]
    alone = {}
    for taker, giver in jobs:
        alone[taker, giver] = pictures[taker].copy()
        ours.swap([(alone[taker, giver], faces[taker])], sources[giver], REQUEST)
    counted.clear()
    results = {job: pictures[job[0]].copy() for job in jobs}
    start = threading.Barrier(len(jobs))

    def work(job: tuple[str, str]) -> None:
        start.wait()
        ours.swap([(results[job], faces[job[0]])], sources[job[1]], REQUEST)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counted["output"] < len(jobs)
    for job in jobs:
        assert np.abs(results[job].astype(int) - alone[job]).max() <= 1


# Files


@pytest.mark.parametrize("last", [True, False])
def test_projection_is_found_wherever_it_is(models: Path, last: bool) -> None:
    data = swapper(last=last).SerializeToString()
    assert np.array_equal(find_projection(data), find_projection((models / "inswapper_128.onnx").read_bytes()))
    final = onnx.load_model_from_string(data).graph.initializer[-1]
    assert (final.name == "buff2fs") is last


def test_projection_that_is_not_there_or_twice_is_an_error() -> None:
    model = swapper()
    extra = onnx.numpy_helper.from_array(np.zeros((512, 512), np.float32), "another")
    model.graph.initializer.append(extra)
    with pytest.raises(ValueError, match="2 constants"):
        find_projection(model.SerializeToString())
    # One that a node uses is not it.
    model.graph.node.append(onnx.helper.make_node("Identity", ["another"], ["unused"]))
    assert find_projection(model.SerializeToString()).std() > 0
    del model.graph.initializer[-2:]
    with pytest.raises(ValueError, match="0 constants"):
        find_projection(model.SerializeToString())


def test_projected_identity_has_unit_length() -> None:
    identity = np.full(512, 512**-0.5, np.float32)
    assert np.allclose(np.linalg.norm(project(identity, np.eye(512, dtype=np.float32) * 7)), 1)


def test_changed_file_never_loads(models: Path, tmp_path: Path) -> None:
    for file in models.iterdir():
        shutil.copy(file, tmp_path)
    file = tmp_path / "inswapper_128.onnx"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    manifest = Manifest.read(tmp_path / "models.toml")
    store = ModelStore(tmp_path, manifest)
    for attempt in (
        lambda: load_engine("inswapper", manifest, store, ONE, Style()),
        lambda: check_engine("inswapper", manifest, store, ONE),
    ):
        with pytest.raises(ModelCorrupt, match="inswapper_128"):
            attempt()
    file.unlink()
    with pytest.raises(ModelMissing, match="nanoswap models pull inswapper_128"):
        check_engine("inswapper", manifest, store, ONE)
    with pytest.raises(EngineUnknown, match="mesh, inswapper, hyperswap"):
        check_engine("outswapper", manifest, store, ONE)


def test_what_can_not_run_is_told_before_anything_starts(models: Path) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        for attempt in (check_engine, lambda *args: load_engine(*args, Style())):
            with pytest.raises(DeviceMissing, match="can't use 'cuda'"):
                attempt("inswapper", manifest, store, replace(ONE, device="cuda"))
    with pytest.raises(
        ModelError, match=r"inswapper's network only, not hyperswap_1a_256|pip install 'nanoswap\[gpu\]'"
    ):
        check_engine("hyperswap", manifest, store, replace(ONE, swapper="torch"))


def test_graph_that_can_not_be_run_is_one_clear_error(models: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    good = store.read

    def read(name: str) -> bytes:
        return good("w600k_r50" if name == "inswapper_128" else name)

    store.read = read  # type: ignore[method-assign]
    with pytest.raises(EngineUnusable, match="the engine 'inswapper' can't be loaded: 0 constants"):
        load_engine("inswapper", manifest, store, ONE, Style())


def test_weights_in_another_file_are_refused(models: Path) -> None:
    model = onnx.load(models / "inswapper_128.onnx")
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(NotSelfContained, match="lies in another file"):
        OnnxNet(model.SerializeToString())


# What goes between networks


def swapped(ours: NeuralEngine, frame: np.ndarray) -> np.ndarray:
    giver = portrait("hopper")
    source = ours.prepare(giver, ours.detect(giver)[0])
    done = frame.copy()
    ours.swap([(done, face) for face in ours.detect(frame)], source, REQUEST)
    return done


def centre(face: Face) -> tuple[slice, slice]:
    x, y = face.points[2].astype(int)
    return slice(y - 6, y + 6), slice(x - 6, x + 6)


def test_what_is_in_front_of_a_face_stays_there(models: Path) -> None:
    frame = portrait("astronaut").copy()
    face = engine(models).detect(frame)[0]
    bar = frame.copy()
    x, y = face.points[3:].mean(0).astype(int)
    bar[y - 8 : y + 8, x - 60 : x + 60] = (0, 255, 0)
    # Seen without the bar and swapped with it, so that both ways paint the same place.
    for uses, stays in (((), False), (("xseg_1",), True)):
        ours = engine(models, uses=uses)
        source = ours.prepare(portrait("hopper"), ours.detect(portrait("hopper"))[0])
        done = bar.copy()
        ours.swap([(done, face)], source, REQUEST)
        off = np.abs(done[y - 3 : y + 3, x - 20 : x + 20].astype(int) - (0, 255, 0)).max()
        assert (off <= 2) == stays
        assert np.abs(done[centre(face)].astype(int) - bar[centre(face)]).mean() > 8


def test_restorer_keeps_off_what_is_in_front(models: Path) -> None:
    frame = portrait("astronaut").copy()
    face = engine(models).detect(frame)[0]
    x, y = face.points[3:].mean(0).astype(int)
    frame[y - 12 : y + 12, x - 60 : x + 60] = (0, 255, 0)
    frame[y - 12 : y + 12 : 3, x - 60 : x + 60] = (0, 215, 0)  # stripes, which a restorer would sharpen
    ours = engine(models, uses=("xseg_1", "gfpgan_1_4"))
    source = ours.prepare(portrait("hopper"), ours.detect(portrait("hopper"))[0])
    done = frame.copy()
    ours.swap([(done, face)], source, REQUEST)
    inside = np.s_[y - 3 : y + 3, x - 20 : x + 20]
    assert np.abs(done[inside].astype(int) - frame[inside]).max() <= 2
    assert (done[centre(face)] != frame[centre(face)]).any()


@pytest.mark.parametrize(("style", "uses"), [(Style(exact=True), ()), (Style(), ALL), (Style(tiles=2), ("2d106det",))])
def test_part_of_a_picture_is_painted_as_in_the_whole(models: Path, style: Style, uses: tuple[str, ...]) -> None:
    """As clips do: only the footprint is there."""
    ours = engine(models, style, uses=uses)
    source = ours.prepare(portrait("astronaut"), ours.detect(portrait("astronaut"))[0])
    whole = crowd()
    for face in ours.detect(whole):
        roi = ours.footprint(face).clip(1920, 1080)
        part = whole[roi.slices].copy()
        here = face.moved(np.ones(2, np.float32), np.array([-roi.x0, -roi.y0], np.float32), (roi.width, roi.height))
        ours.swap([(whole, face)], source, REQUEST)
        ours.swap([(part, here)], source, REQUEST)
        assert np.abs(whole[roi.slices].astype(int) - part).max() <= 2


def test_landmarks_bound_what_is_painted(models: Path) -> None:
    frame = portrait("astronaut")
    face = engine(models).detect(frame)[0]
    wide, close = (swapped(engine(models, uses=uses), frame) for uses in ((), ("2d106det",)))
    area = [(done != frame).any(2).sum() for done in (wide, close)]
    assert area[1] < 0.8 * area[0]
    assert (close[centre(face)] != frame[centre(face)]).any()


def test_restorer_is_one_more_step(models: Path) -> None:
    frame = portrait("astronaut")
    bare, better = (swapped(engine(models, uses=uses), frame) for uses in ((), ("gfpgan_1_4",)))
    face = engine(models).detect(frame)[0]
    fine = [cv2.Laplacian(done[centre(face)].astype(np.float32), cv2.CV_32F).std() for done in (bare, better)]
    assert fine[1] > fine[0]


def test_tone_follows_the_face_that_is_covered(models: Path) -> None:
    frame = portrait("astronaut")
    face = engine(models).detect(frame)[0]
    x0, y0, x1, y1 = (
        face.points.min(0).astype(int)[0],
        face.points.min(0).astype(int)[1],
        *face.points.max(0).astype(int),
    )
    off = [
        np.abs(
            swapped(engine(models, style), frame)[y0:y1, x0:x1].mean((0, 1)) - frame[y0:y1, x0:x1].mean((0, 1))
        ).max()
        for style in (Style(), Style(tone=True))
    ]
    assert off[1] < 0.8 * off[0]


def test_tiles_give_more_detail_to_large_faces_only(models: Path, counted: Counter[str]) -> None:
    large = cv2.resize(portrait("hopper"), None, fx=2, fy=2)
    ours = engine(models, Style(tiles=4))
    counted.clear()
    done = swapped(ours, large)
    assert counted["output"] == 1  # all sixteen tiles
    assert (done != large).any()
    coarse = swapped(engine(models), large)
    face = ours.detect(large)[0]
    assert np.abs(done[centre(face)].astype(int) - coarse[centre(face)]).max() > 0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_tiles_see_the_face_where_the_network_expects_it(models: Path, k: int) -> None:
    """On a picture that is brighter to the right and below, the mean of all tiles is the coarse crop itself."""
    y, x = np.mgrid[:600, :600]
    slope = np.stack([x * 0.4, y * 0.4, (x + y) * 0.2], axis=2).astype(np.uint8)
    face = (
        engine(models)
        .detect(cv2.resize(portrait("hopper"), (600, 600)))[0]
        .moved(np.full(2, 1.7, np.float32), np.full(2, -180, np.float32), (600, 600))
    )
    coarse = engine(models)._cut(slope, face)
    fine = engine(models, Style(tiles=k))._cut(slope, face)
    assert (coarse.k, fine.k) == (1, k)
    off = split(fine.pixels, k).astype(np.float32).mean(0) - coarse.pixels
    assert np.abs(off[8:-8, 8:-8].mean((0, 1))).max() < 0.15


def test_256_kind_takes_the_identity_as_it_is_and_its_own_mask(models: Path) -> None:
    ours = engine(models, name="hyperswap")
    giver = portrait("hopper")
    source = ours.prepare(giver, ours.detect(giver)[0])
    assert np.allclose(source.latent, ours.recognise(giver, ours.detect(giver))[0].embedding, atol=1e-6)
    frame = portrait("astronaut")
    face = ours.detect(frame)[0]
    done = swapped(ours, frame)
    assert (done[centre(face)] != frame[centre(face)]).any()
    # The stand-in's mask is a disc, so the corners of the crop stay, though the soft box alone would paint there.
    corner = cv2.transform(np.array([[(40.0, 40.0)]]), cv2.invertAffineTransform(to_crop(face.points, 256)))[0, 0]
    x, y = corner.astype(int)
    assert np.array_equal(done[y - 2 : y + 2, x - 2 : x + 2], frame[y - 2 : y + 2, x - 2 : x + 2])


@pytest.mark.parametrize("uses", [(), ALL])
def test_nothing_outside_the_footprint_changes(models: Path, uses: tuple[str, ...]) -> None:
    frame = crowd()
    ours = engine(models, uses=uses)
    done = swapped(ours, frame)
    outside = np.ones(frame.shape[:2], bool)
    for face in ours.detect(frame):
        outside[ours.footprint(face).clip(1920, 1080).slices] = False
    assert np.array_equal(done[outside], frame[outside])


def test_face_at_the_very_edge_and_beyond(models: Path) -> None:
    ours = engine(models, uses=ALL)
    source = NeuralSource(np.full(512, 512**-0.5, np.float32))
    frame = portrait("astronaut").copy()
    face = ours.detect(frame)[0]
    for shift in ((-200, 0), (250, -90), (4000, 4000)):
        moved = face.moved(np.ones(2, np.float32), np.array(shift, np.float32), face.frame)
        (roi,) = ours.swap([(frame, moved)], source, REQUEST)
        assert roi.clip(512, 512) == roi or roi.empty


def test_identity_leaves_nothing_behind(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that goes into and comes out of the encoder is overwritten; what is handed out is the caller's."""
    seen: list[np.ndarray] = []
    forward = OnnxNet.forward

    def watched(self: OnnxNet, *rows: np.ndarray) -> list[np.ndarray]:
        out = forward(self, *rows)
        seen.extend((*rows, *out))
        return out

    monkeypatch.setattr(OnnxNet, "forward", watched)
    ours = engine(models)
    giver = portrait("hopper")
    faces = ours.detect(giver)
    seen.clear()
    source = ours.prepare(giver, faces[0])
    assert len(seen) == 2
    assert not any(value.any() for value in seen)
    assert source.latent.any()


def test_source_is_wiped(models: Path) -> None:
    ours = engine(models)
    giver = portrait("hopper")
    source = ours.prepare(giver, ours.detect(giver)[0])
    assert np.linalg.norm(source.latent) > 0.9
    source.wipe()
    assert not source.latent.any()


def test_source_of_another_engine_is_refused(models: Path) -> None:
    from nanoswap.pipelines.mesh import MeshEngine

    mesh = MeshEngine()
    giver = portrait("hopper")
    source = mesh.prepare(giver, mesh.detect(giver)[0])
    with pytest.raises(TypeError, match="another engine"):
        engine(models).swap([(giver.copy(), engine(models).detect(giver)[0])], source, REQUEST)


def test_result_of_a_whole_request_is_a_picture(models: Path) -> None:
    made = swap_image(
        engine(models), jpeg(portrait("hopper")), jpeg(portrait("astronaut")), SwapOptions(format="png"), ImageLimits(),
        gate=None, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    assert decode(made.data, ImageLimits()).shape == (512, 512, 3)
