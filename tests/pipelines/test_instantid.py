"""The flagship as an engine: real files' layout, real loaders, tiny random weights, two known faces."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

import torch

from nanoswap.pipelines import engines
from nanoswap.pipelines import instantid as module
from nanoswap.pipelines import portrait as portrait_module
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Engine, Request, rounds
from nanoswap.pipelines.engines import EngineUnusable, check_engine, load_engine
from nanoswap.pipelines.errors import Cancelled
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.image import ImageLimits
from nanoswap.pipelines.instantid import POINTS, InstantIdEngine, cells
from nanoswap.pipelines.klein import KleinEngine
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import LicenceNotAccepted, ModelMissing, ModelStore
from nanoswap.pipelines.portrait import cut_portrait, reach, to_portrait
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.runtime import DeviceMissing, Runtime
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.swap import SwapOptions, swap_image
from tests.clips import portrait
from tests.serve.conftest import jpeg

pytestmark = pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(models: Path, name: str, uses: tuple[str, ...] = (), **runtime: Any) -> Any:
    """`uses`: optional models that it takes."""
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    store.has = lambda model: model in uses  # type: ignore[method-assign]
    return load_engine(name, manifest, store, Runtime(threads=1, **runtime), Style())


@pytest.fixture(scope="module")
def fast(models: Path) -> InstantIdEngine:
    engine: InstantIdEngine = load(models, "instantid")
    return engine


def request(seed: int = 0) -> Request:
    return Request(CancelToken(), seed)


def swapped(engine: Engine, giver: str, seed: int = 0, face: Face | None = None) -> np.ndarray:
    """The astronaut with somebody's face."""
    source = engine.prepare(portrait(giver), engine.detect(portrait(giver))[0])
    rgb = portrait("astronaut").copy()
    engine.swap([(rgb, face or engine.detect(rgb)[0])], source, request(seed))
    return rgb


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int((np.abs(a.astype(int) - b).max(2) > 6).sum())


@pytest.mark.parametrize("name", ["instantid", "instantid-quality", "instantid-pulid", "instantid-reference"])
def test_who_where_and_seed_change_the_face_and_nothing_else_changes(models: Path, name: str) -> None:
    engine = load(models, name)
    face = engine.detect(portrait("astronaut"))[0]
    base = swapped(engine, "hopper")
    assert np.array_equal(swapped(engine, "hopper"), base)
    assert apart(swapped(engine, "astronaut"), base) > 60
    assert apart(swapped(engine, "hopper", seed=1), base) > 3000
    # The nose and the mouth elsewhere, and the crop where it was.
    points = face.points.copy()
    points[2:] += (0, 9)
    moved = swapped(engine, "hopper", face=replace(face, points=points))
    assert apart(moved, base) > 60
    before = portrait("astronaut")
    mine = engine.footprint(face).clip(before.shape[1], before.shape[0])
    outside = np.ones(before.shape[:2], bool)
    outside[mine.slices] = False
    assert outside.sum() > 100_000
    assert np.array_equal(base[outside], before[outside])
    assert apart(base, before) > 3000


def test_touched_rectangle_lies_within_the_footprint(fast: InstantIdEngine) -> None:
    rgb = portrait("astronaut").copy()
    face = fast.detect(rgb)[0]
    source = fast.prepare(portrait("hopper"), fast.detect(portrait("hopper"))[0])
    (touched,) = fast.swap([(rgb, face)], source, request())
    mine = fast.footprint(face)
    assert mine.union(touched) == mine
    # A face at the picture's edge: what is beyond isn't there to be painted.
    half = portrait("astronaut")[:, 230:].copy()
    cut = replace(face, points=face.points - np.float32((230, 0)), frame=(half.shape[1], half.shape[0]))
    (touched,) = fast.swap([(half, cut)], source, request())
    assert touched.x0 == 0
    assert touched.clip(half.shape[1], half.shape[0]) == touched


def test_faces_together_are_the_faces_alone(fast: InstantIdEngine) -> None:
    giver = portrait("hopper")
    source = fast.prepare(giver, fast.detect(giver)[0])
    one = portrait("astronaut")
    wide = np.hstack([one, one])
    (face,) = (replace(face, frame=(wide.shape[1], wide.shape[0])) for face in fast.detect(one)[:1])
    shift = np.float32((one.shape[1], 0))
    faces = [face, replace(face, box=face.box + np.tile(shift, 2), points=face.points + shift)]
    assert rounds(fast, [(0, face) for face in faces]) == [[0, 1]]
    together, alone = wide.copy(), wide.copy()
    fast.swap([(together, face) for face in faces], source, request())
    for face in faces:
        fast.swap([(alone, face)], source, request())
    assert apart(together, wide) > 6000
    assert np.abs(together.astype(int) - alone).max() <= 1
    with pytest.raises(ValueError, match="8 are most"):
        fast.swap([(wide, faces[0])] * 9, source, request())
    assert fast.swap([], source, request()) == []


def test_people_who_come_together_get_what_they_would_get_alone(
    fast: InstantIdEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = fast._nets.denoiser
    sizes: list[int] = []
    step = fast._steps._step

    def slow(jobs: Any) -> None:
        sizes.append(len(jobs))
        threading.Event().wait(0.02)
        step(jobs)

    monkeypatch.setattr(fast._steps, "_step", slow)
    wishes = [(giver, seed) for giver in ("hopper", "astronaut") for seed in range(3)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda wish: swapped(fast, *wish), wishes))
    assert max(sizes) > 2
    assert len(sizes) < 6 * denoiser.recipe.run
    for wish, picture in zip(wishes, together, strict=True):
        assert np.abs(picture.astype(int) - swapped(fast, *wish)).max() <= 1


def test_cancelled_between_steps(fast: InstantIdEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    cancel = CancelToken()
    step, steps, jobs = fast._steps._step, [], []

    def counted(batch: Any) -> None:
        step(batch)
        steps.append(len(batch))
        jobs.extend(batch)
        cancel.cancel()

    monkeypatch.setattr(fast._steps, "_step", counted)
    source = fast.prepare(portrait("hopper"), fast.detect(portrait("hopper"))[0])
    rgb = portrait("astronaut").copy()
    with pytest.raises(Cancelled):
        fast.swap([(rgb, fast.detect(rgb)[0])], source, Request(cancel))
    assert steps == [1]
    assert np.array_equal(rgb, portrait("astronaut"))
    assert not any(bool(each.any()) for each in (jobs[0].latents, jobs[0].original, jobs[0].hint))


def test_everything_of_a_face_is_overwritten(fast: InstantIdEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Any] = []

    def kept(name: str, of: Any = module) -> None:
        real = getattr(of, name)

        def call(*args: Any, **named: Any) -> Any:
            held.append(real(*args, **named))
            return held[-1]

        monkeypatch.setattr(of, name, call)

    kept("cut_portrait")
    kept("decode", fast._nets.autoencoder)
    kept("begin", fast._nets.denoiser)
    kept("raw", fast._nets.encoder)
    source = fast.prepare(portrait("hopper"), fast.detect(portrait("hopper"))[0])
    embedding = held.pop()
    assert embedding.shape == (512,)
    assert not embedding.any()
    rgb = portrait("astronaut").copy()
    fast.swap([(rgb, fast.detect(rgb)[0])], source, request())
    crop, job, made = held
    assert not crop.any()
    assert not made.any()
    assert not any(bool(each.any()) for each in (job.latents, job.original, job.noise, job.hint, *job.tokens))
    assert all(bool(each.any()) for each in source.tokens)
    source.wipe()
    assert not any(bool(each.any()) for each in source.tokens)


def test_identity_is_what_the_network_says_and_not_of_unit_length(
    fast: InstantIdEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    identity = fast._nets.identity

    def watched(embedding: np.ndarray, rgb: Any, face: Face) -> Any:
        seen.append(embedding.copy())
        return identity(embedding, rgb, face)

    monkeypatch.setattr(fast, "_nets", replace(fast._nets, identity=watched))  # type: ignore[arg-type]
    rgb = portrait("hopper")
    face = fast.detect(rgb)[0]
    fast.prepare(rgb, face)
    (known,) = fast.recognise(rgb, [face])
    assert known.embedding is not None
    assert not 0.9 < float(np.linalg.norm(seen[0])) < 1.1
    assert np.allclose(seen[0] / np.linalg.norm(seen[0]), known.embedding, atol=1e-5)


def test_what_is_in_front_of_the_face_stays(models: Path) -> None:
    engine = load(models, "instantid", uses=("xseg_1", "2d106det"))
    rgb = portrait("astronaut").copy()
    face = engine.detect(rgb)[0]
    x, y = face.points[3].astype(int)
    cv2.rectangle(rgb, (x - 40, y + 4), (x + 60, y + 40), (0, 255, 0), -1)
    before = rgb.copy()
    source = engine.prepare(portrait("hopper"), engine.detect(portrait("hopper"))[0])
    engine.swap([(rgb, face)], source, request())
    held = (slice(y + 14, y + 30), slice(x - 25, x + 45))
    assert np.abs(rgb[held].astype(int) - before[held]).max() <= 3
    assert apart(rgb, before) > 1500


def test_dense_landmarks_say_what_is_painted(models: Path) -> None:
    before = portrait("astronaut")
    engine = load(models, "instantid", uses=("2d106det",))
    face = engine.detect(before)[0]
    made = swapped(engine, "hopper")
    (dense,) = engine._nets.landmarks([before], [face])
    hull = np.zeros(before.shape[:2], np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.rint(dense).astype(np.int32)), 255)
    changed = np.abs(made.astype(int) - before).max(2) > 6
    grown = cv2.dilate(hull, np.ones((61, 61), np.uint8)) > 0
    assert changed[hull > 0].mean() > 0.8
    assert not changed[~grown].any()
    oval = np.abs(swapped(load(models, "instantid"), "hopper").astype(int) - before).max(2) > 6
    assert (oval != changed).sum() > 500


def test_tone_is_matched_where_it_is_asked_for(models: Path) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    store.has = lambda model: False  # type: ignore[method-assign]
    toned = load_engine("instantid", manifest, store, Runtime(threads=1), Style(tone=True))
    before = portrait("astronaut")
    plain, matched = (swapped(engine, "hopper") for engine in (load(models, "instantid"), toned))
    changed = np.abs(plain.astype(int) - before).max(2) > 6
    off = [np.abs(one[changed].mean(0) - before[changed].mean(0)).max() for one in (plain, matched)]
    assert off[1] < off[0]
    assert (matched != plain).any()


def test_large_face_costs_no_more_than_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of 40 megapixels that is all face."""
    seen: list[tuple[int, ...]] = []
    real = portrait_module.cut
    monkeypatch.setattr(portrait_module, "cut", lambda rgb, *more: seen.append(rgb.shape) or real(rgb, *more))
    rgb = np.zeros((5000, 7000, 3), np.uint8)
    rgb[:, 3500:] = 200
    points = np.float32([(1900, 2000), (5100, 2000), (3500, 3000), (2200, 4000), (4800, 4000)])
    face = Face(box=np.float32([0, 0, 7000, 5000]), points=points, score=1.0, frame=(7000, 5000))
    crop = cut_portrait(rgb, to_portrait(face, POINTS, 512), 512)
    assert crop.shape == (512, 512, 3)
    assert crop[:, :250].max() == 0
    assert crop[:, 262:].min() == 200
    assert np.prod(seen[0]) < 4 * 512 * 512 * 3
    beyond = to_portrait(replace(face, points=points + 90_000), POINTS, 512)
    assert cut_portrait(rgb, beyond, 512).shape == (512, 512, 3)


def test_crop_is_as_large_as_the_face_needs(fast: InstantIdEngine) -> None:
    recipe = fast._nets.denoiser.recipe
    assert recipe.sizes == (64, 128)
    assert [recipe.size(px) for px in (10, 64.01, 65, 128, 900)] == [64, 64, 128, 128, 128]
    rgb = portrait("astronaut")
    face = fast.detect(rgb)[0]
    matrix = to_portrait(face, POINTS, 128)
    eyes = float(np.linalg.norm(face.points[1] - face.points[0]))
    # At least 40 % of room round a face that is 2.9 distances of the eyes high.
    assert reach(matrix, 128) > 1.4 * 2.9 * eyes
    # Means of pixels, in their places: a smooth picture comes out as plain sampling gives it.
    smooth = cv2.GaussianBlur(rgb, (0, 0), 9)
    fine = cut_portrait(smooth, to_portrait(face, POINTS, 64), 64)
    plain = cv2.warpAffine(smooth, to_portrait(face, POINTS, 64), (64, 64), borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(fine[4:-4, 4:-4].astype(int) - plain[4:-4, 4:-4]).mean() < 1
    noisy = np.random.default_rng(0).integers(0, 256, rgb.shape, dtype=np.uint8)
    assert cut_portrait(noisy, to_portrait(face, POINTS, 64), 64).std() < 0.6 * noisy.std()


def test_latents_that_will_be_seen_are_made_anew() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[17, 30] = 255
    mask[40, 40] = 3
    made = cells(mask)
    assert made.shape == (1, 1, 8, 8)
    assert made.sum() == 1
    assert made[0, 0, 2, 3] == 1


def test_whole_swap_of_encoded_pictures_by_seed(fast: InstantIdEngine) -> None:
    def swap(seed: int) -> bytes:
        options = SwapOptions(format="png", seed=seed)
        files = jpeg(portrait("hopper")), jpeg(portrait("astronaut"))
        made = swap_image(fast, *files, options, ImageLimits(), gate=None, cancel=CancelToken(), report=lambda *_: None)
        assert made.faces == 1
        return bytes(made.data)

    assert swap(7) == swap(7) != swap(8)


def test_warm_when_it_is_loaded(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[Roi] = []
    swap = InstantIdEngine.swap

    def counted(self: InstantIdEngine, *args: Any) -> Any:
        touched.extend(swap(self, *args))
        return touched[-1:]

    monkeypatch.setattr(InstantIdEngine, "swap", counted)
    load(models, "instantid")
    assert [roi.width for roi in touched] == [64, 128]


def test_source_of_another_engine_is_refused(fast: InstantIdEngine) -> None:
    class Other:
        def wipe(self) -> None: ...

    with pytest.raises(TypeError, match="another engine"):
        fast.swap([], Other(), request())


# What is refused at start


def check(name: str, store: ModelStore, **runtime: Any) -> None:
    check_engine(name, store.manifest, store, Runtime(**runtime))


@pytest.mark.parametrize("name", ["instantid", "instantid-quality", "instantid-pulid", "instantid-reference", "klein"])
def test_real_weights_without_a_gpu_are_refused(tmp_path: Path, name: str) -> None:
    real = Manifest.read()
    store = ModelStore(tmp_path, real, frozenset(real.licences))
    with pytest.raises(EngineUnusable, match=r"needs a GPU.*NANOSWAP_DEVICE=cuda"):
        check(name, store)
    with pytest.raises(EngineUnusable, match="needs a GPU"):
        load_engine(name, real, store, Runtime(), Style())
    if not torch.cuda.is_available():
        with pytest.raises(DeviceMissing):
            check(name, store, device="cuda", dtype="bfloat16")


def test_float16_is_refused(models: Path) -> None:
    store = ModelStore(models, Manifest.read(models / "models.toml"))
    with pytest.raises(EngineUnusable, match="NANOSWAP_DTYPE=bfloat16"):
        check("instantid", store, dtype="float16")
    check("instantid", store, dtype="bfloat16")
    entry = store.manifest.engines["instantid"]
    with pytest.raises(EngineUnusable, match=r"in bfloat16 on a GPU: NANOSWAP_DTYPE=bfloat16"):
        engines._check_diffusion(entry, store.manifest, Runtime(device="cuda"))
    engines._check_diffusion(entry, store.manifest, Runtime(device="cuda", dtype="bfloat16"))
    # One file that is no stand-in is real weights.
    models_ = dict(store.manifest.models)
    models_["sdxl_vae"] = replace(models_["sdxl_vae"], stand_in=False)
    with pytest.raises(EngineUnusable, match="needs a GPU"):
        engines._check_diffusion(entry, replace(store.manifest, models=models_), Runtime())


def test_missing_file_and_licence_are_refused(models: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(models / "models.toml")
    with pytest.raises(ModelMissing, match="nanoswap models pull"):
        check("instantid", ModelStore(tmp_path, manifest))
    real = Manifest.read()
    for name in ("instantid_net", "instantid_adapter", "glintr100", "pulid"):
        with pytest.raises(LicenceNotAccepted):
            ModelStore(tmp_path, real).read(name)
    for name in real.engines["klein"].needs:
        assert real.models[name].licence.commercial


def test_broken_file_is_one_line(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    read = store.read
    monkeypatch.setattr(store, "read", lambda name: b"{}" if name == "sdxl_unet_config" else read(name))
    with pytest.raises(EngineUnusable, match="can't be loaded") as raised:
        load_engine("instantid", manifest, store, Runtime(), Style())
    assert "\n" not in str(raised.value)


def test_bfloat16_gives_nearly_the_same(models: Path, fast: InstantIdEngine) -> None:
    coarse = load(models, "instantid", dtype="bfloat16")
    a, b = swapped(fast, "hopper"), swapped(coarse, "hopper")
    before = portrait("astronaut")
    changed = np.abs(a.astype(int) - before).max(2) > 6
    assert not np.array_equal(a, b)
    assert np.abs(a.astype(int) - b)[changed].mean() < 0.1 * np.abs(a.astype(int) - before)[changed].mean()


def test_klein_is_loaded_by_its_name(models: Path) -> None:
    engine = load(models, "klein")
    assert isinstance(engine, KleinEngine)
    before = portrait("astronaut")
    made = swapped(engine, "hopper")
    assert apart(made, before) > 3000


def test_every_batch_that_compiled_networks_are_given_is_warm(
    fast: InstantIdEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    step = fast._nets.denoiser.step

    def counted(jobs: Any) -> None:
        seen.append((jobs[0].bucket, len(jobs)))
        step(jobs)

    monkeypatch.setattr(fast._nets.denoiser, "step", counted)
    monkeypatch.setattr(fast._steps, "_step", counted)
    monkeypatch.setattr(fast._nets.denoiser, "rows", (1, 2, 4, 8, 16))
    monkeypatch.setattr(fast, "batch", 3)
    fast.warm()
    assert {rows for _, rows in seen} == {1, 2, 4}
    assert {size for size, _ in seen} == {64, 128}
    # Not compiled: one, and as many as will ever share a step.
    seen.clear()
    monkeypatch.setattr(fast._nets.denoiser, "rows", ())
    fast.warm()
    assert {rows for _, rows in seen} == {1, 3}


def test_each_file_is_read_when_it_is_needed_and_few_twice(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(models, manifest)
    store.has = lambda model: model == "2d106det"  # type: ignore[method-assign]
    read, seen = store.read, []
    monkeypatch.setattr(store, "read", lambda name: seen.append(name) or read(name))
    load_engine("instantid-pulid", manifest, store, Runtime(threads=1), Style())
    assert set(seen) == {*manifest.engines["instantid-pulid"].needs, "2d106det"}
    # insightface looks into two of the files itself.
    assert {name for name in seen if seen.count(name) > 1} <= {"glintr100", "2d106det"}
