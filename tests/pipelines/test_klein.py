"""The engine of FLUX.2 [klein] on tiny weights: whose face it is, the seed, what stays as it is, and what is left."""

import gc
import json
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from transformers import Qwen3Config, Qwen3ForCausalLM

from nanoswap.pipelines import klein as module
from nanoswap.pipelines import klein_load
from nanoswap.pipelines import portrait as portrait_module
from nanoswap.pipelines.align import place, similarity
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Request
from nanoswap.pipelines.errors import Cancelled
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.klein import POINTS, PROMPT, KleinEngine, KleinSource
from nanoswap.pipelines.klein_load import load_klein
from nanoswap.pipelines.mesh import MeshEngine
from tests.clips import portrait
from tests.stand_ins.klein import TEXT_ENCODER, WORDS, klein

SIZE = 128
FILES = klein()


class Later(CancelToken):
    """Cancels itself when it is asked for the `n`th time."""

    __slots__ = ("left",)

    def __init__(self, n: int) -> None:
        super().__init__()
        self.left = n

    def check(self) -> None:
        self.left -= 1
        if self.left <= 0:
            self.cancel()
        super().check()


class Watched:
    """In place of the pipeline: keeps what it is given and what it gives."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline, self.tensors, self.kept = pipeline, [], []  # type: ignore[var-annotated]

    def __call__(self, **kwargs: Any) -> Any:
        given = [kwargs["image"], kwargs["image_reference"]]
        self.tensors += given
        self.kept += [one.clone() for one in given]
        answer = self.pipeline(**kwargs)
        self.tensors += answer
        return answer


@pytest.fixture(scope="module")
def engine() -> Iterator[KleinEngine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_klein("klein", FILES, device="cpu", dtype="float32", size=SIZE)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def astronaut(engine: KleinEngine) -> Face:
    return engine.detect(portrait("astronaut"))[0]


@pytest.fixture(scope="module")
def hopper(engine: KleinEngine) -> KleinSource:
    rgb = portrait("hopper")
    return engine.prepare(rgb, engine.detect(rgb)[0])


@pytest.fixture
def watched(engine: KleinEngine, monkeypatch: pytest.MonkeyPatch) -> Watched:
    watch = Watched(engine._pipeline)
    monkeypatch.setattr(engine, "_pipeline", watch)
    return watch


def swapped(engine: KleinEngine, face: Face, source: KleinSource, seed: int = 0) -> np.ndarray:
    """The astronaut with another face, int."""
    rgb = portrait("astronaut").copy()
    engine.swap([(rgb, face)], source, Request(CancelToken(), seed))
    return rgb.astype(int)


# What is made


def test_face_becomes_another_and_nothing_else_changes(
    engine: KleinEngine, astronaut: Face, hopper: KleinSource
) -> None:
    before = portrait("astronaut")
    rgb = before.copy()
    (touched,) = engine.swap([(rgb, astronaut)], hopper, Request(CancelToken()))
    assert touched.union(engine.footprint(astronaut)) == engine.footprint(astronaut)
    changed = np.abs(rgb.astype(int) - before).max(2)
    x, y = astronaut.points[2].astype(int)
    assert changed[y - 15 : y + 15, x - 15 : x + 15].mean() > 20
    outside = np.ones(changed.shape, bool)
    outside[touched.slices] = False
    assert not changed[outside].any()
    # Nor the room around the face, which the network sees and isn't asked to paint.
    x0, y0, x1, y1 = astronaut.box.astype(int)
    room = (y1 - y0) // 6
    outside[:] = True
    outside[y0 - room : y1 + room, x0 - room : x1 + room] = False
    assert not changed[outside].any()


def test_faces_follow_source_and_seed(engine: KleinEngine, astronaut: Face, hopper: KleinSource) -> None:
    once = swapped(engine, astronaut, hopper)
    assert np.array_equal(once, swapped(engine, astronaut, hopper))
    assert np.abs(once - swapped(engine, astronaut, hopper, seed=1)).max() > 50
    own = engine.prepare(portrait("astronaut"), astronaut)
    assert np.abs(once - swapped(engine, astronaut, own)).max() > 20


def test_a_face_takes_four_steps_and_no_second_look(engine: KleinEngine, astronaut: Face, hopper: KleinSource) -> None:
    """As the network was distilled for, whatever the guidance that diffusers would take by itself."""
    rows: list[int] = []
    transformer = engine._pipeline.transformer
    hook = transformer.register_forward_hook(lambda _, args, output: rows.append(len(output[0])))
    try:
        swapped(engine, astronaut, hopper)
    finally:
        hook.remove()
    assert rows == [1, 1, 1, 1]


def test_pictures_reach_the_network_upright_and_whole(
    engine: KleinEngine, astronaut: Face, hopper: KleinSource, watched: Watched
) -> None:
    """Target first, then the source, as the prompt says; RGB from 0 to 1; the eyes level where they should be."""
    swapped(engine, astronaut, hopper)
    target, source = (one[0].permute(1, 2, 0).numpy() * 255 for one in watched.kept)
    assert np.abs(source - hopper.pixels).max() < 0.01
    # The helmet's orange is in no other channel order.
    assert np.abs(target - engine.prepare(portrait("astronaut"), astronaut).pixels).max() < 0.01
    face = MeshEngine().detect(np.rint(target).astype(np.uint8))[0]
    assert np.abs(face.points / SIZE - POINTS).max() < 0.03
    # 40 % of the face's height above it and below it.
    height = face.box[3] - face.box[1]
    assert face.box[1] > 0.35 * height
    assert SIZE - face.box[3] > 0.35 * height


def test_a_face_of_many_pixels_is_averaged_and_not_picked_from(engine: KleinEngine) -> None:
    fine = np.indices((1600, 1600)).sum(0) % 2 * 255
    rgb = np.repeat(fine[..., None], 3, 2).astype(np.uint8)
    points = (POINTS * 1500 + 50).astype(np.float32)
    face = Face(box=np.array([500, 500, 1100, 1300], np.float32), points=points, score=1.0, frame=(1600, 1600))
    assert np.abs(engine.prepare(rgb, face).pixels.astype(int) - 127).max() < 30


def test_a_face_at_the_border_is_painted_as_far_as_it_is_there(
    engine: KleinEngine, astronaut: Face, hopper: KleinSource
) -> None:
    left = int(astronaut.points[2][0])  # through the nose
    rgb = np.ascontiguousarray(portrait("astronaut")[:, left:])
    height, width = rgb.shape[:2]
    half = astronaut.moved(np.ones(2, np.float32), np.array([-left, 0], np.float32), (width, height))
    assert engine.footprint(half).x0 < 0
    before = rgb.copy()
    (touched,) = engine.swap([(rgb, half)], hopper, Request(CancelToken()))
    assert touched.x0 == 0
    assert touched == engine.footprint(half).clip(width, height)
    assert (rgb != before).any()


def test_several_faces_of_one_call(engine: KleinEngine, astronaut: Face, hopper: KleinSource) -> None:
    pictures = [portrait("astronaut").copy() for _ in range(2)]
    engine.swap([(rgb, astronaut) for rgb in pictures], hopper, Request(CancelToken()))
    for rgb in pictures:
        assert np.array_equal(rgb, swapped(engine, astronaut, hopper))


def test_calls_of_several_threads_do_not_meet(engine: KleinEngine, astronaut: Face, hopper: KleinSource) -> None:
    own = engine.prepare(portrait("astronaut"), astronaut)
    alone = [swapped(engine, astronaut, source, seed) for source in (hopper, own) for seed in (0, 1)]
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(swapped, engine, astronaut, source, seed) for source in (hopper, own) for seed in (0, 1)]
        for job, expected in zip(jobs, alone, strict=True):
            assert np.array_equal(job.result(60), expected)


def test_other_engines_sources_are_refused(engine: KleinEngine, astronaut: Face) -> None:
    rgb = portrait("astronaut").copy()
    with pytest.raises(TypeError, match="another engine"):
        engine.swap([(rgb, astronaut)], MeshEngine().prepare(rgb, astronaut), Request(CancelToken()))


def test_mask_lies_on_the_face(engine: KleinEngine) -> None:
    """Pupils, nose and mouth wholly, the crop's edge not at all."""
    mask = engine._mask
    for x, y in np.rint(POINTS * SIZE).astype(int):
        assert mask[y, x] > 250
    edge = SIZE // 8
    inner = np.zeros_like(mask)
    inner[edge:-edge, edge:-edge] = mask[edge:-edge, edge:-edge]
    assert np.array_equal(inner, mask)
    assert 0.1 < (mask > 127).mean() < 0.3


# What is left


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_cancelled_between_steps(
    engine: KleinEngine, astronaut: Face, hopper: KleinSource, watched: Watched, asked: int
) -> None:
    """Before anything is done, after the first step, after the second: the picture is as it was and all is wiped."""
    before = portrait("astronaut")
    rgb = before.copy()
    steps: list[int] = []
    hook = watched.pipeline.transformer.register_forward_hook(lambda *_: steps.append(1))
    try:
        with pytest.raises(Cancelled):
            engine.swap([(rgb, astronaut)], hopper, Request(Later(asked)))
    finally:
        hook.remove()
    assert len(steps) == asked - 1
    assert np.array_equal(rgb, before)
    assert all(not one.any() for one in watched.tensors)
    assert hopper.pixels.any()
    assert (swapped(engine, astronaut, hopper) != before).any()  # and the engine is free again


def test_whoever_waits_can_leave(engine: KleinEngine, astronaut: Face, hopper: KleinSource) -> None:
    token, left = CancelToken(), threading.Event()

    def wait() -> None:
        with pytest.raises(Cancelled):
            engine.swap([(portrait("astronaut").copy(), astronaut)], hopper, Request(token))
        left.set()

    with engine._lock:
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        assert not left.wait(0.3)
        token.cancel()
        assert left.wait(10)
    thread.join(10)


def test_pixels_are_wiped(
    engine: KleinEngine, astronaut: Face, hopper: KleinSource, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays: list[np.ndarray] = []

    def kept(function: Any, which: int | None) -> Any:
        def call(*args: Any) -> Any:
            answer = function(*args)
            arrays.append(answer if which is None else args[which])
            return answer

        return call

    monkeypatch.setattr(module, "cut_portrait", kept(module.cut_portrait, None))
    monkeypatch.setattr(module, "paste", kept(module.paste, 1))
    swapped(engine, astronaut, hopper)
    assert len(arrays) == 2
    assert len(watched.tensors) == 3
    assert all(not one.any() for one in (*arrays, *watched.tensors))
    assert all(one.any() for one in watched.kept)


def test_a_fine_crop_on_the_way_is_wiped(engine: KleinEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = cv2.resize(portrait("astronaut"), None, fx=4, fy=4)
    (face, *_) = engine.detect(rgb)
    arrays: list[np.ndarray] = []
    cut = portrait_module.cut
    monkeypatch.setattr(portrait_module, "cut", lambda *args: arrays.append(args[0]) or cut(*args))
    source = engine.prepare(rgb, face)
    (small,) = arrays
    assert small.shape[0] < rgb.shape[0] / 2
    assert not small.any()
    assert source.pixels.any()
    source.wipe()
    assert not source.pixels.any()
    source.wipe()


# How it is loaded


def test_engine_is_warm_and_has_dropped_its_text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    paint = KleinEngine._made

    def count(self: KleinEngine, *args: Any) -> Any:
        answer = paint(self, *args)
        made.append(answer.shape)
        return answer

    encoders: list[weakref.ref[Any]] = []
    load_text_encoder = klein_load.encoder

    def follow(*args: Any) -> Any:
        encoder = load_text_encoder(*args)
        encoders.append(weakref.ref(encoder))
        return encoder

    monkeypatch.setattr(KleinEngine, "_made", count)
    monkeypatch.setattr(klein_load, "encoder", follow)
    engine = load_klein("klein", FILES, device="cpu", dtype="bfloat16", size=64)
    assert made == [(64, 64, 3)]
    gc.collect()
    assert [one() for one in encoders] == [None]
    assert (engine.name, engine.batch) == ("klein", 1)
    assert engine._pipeline.config.is_distilled
    assert engine._pipeline.transformer.dtype == engine._pipeline.vae.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompt_is_what_the_text_encoder_makes_of_it(dtype: torch.dtype) -> None:
    """Said as a question to Qwen3 that is answered without thinking, filled up to 512 tokens."""
    engine = load_klein("klein", FILES, device="cpu", dtype=str(dtype).removeprefix("torch."), size=64)
    token = {word: 256 + index for index, word in enumerate(WORDS)}
    letters = json.loads(FILES["tokenizer"])["model"]["vocab"]

    def spelt(text: str) -> list[int]:
        return [letters["\u0120" if letter == " " else "\u010a" if letter == "\n" else letter] for letter in text]

    ids = [token["<|im_start|>"], *spelt("user\n" + PROMPT), token["<|im_end|>"], *spelt("\n")]
    ids += [token["<|im_start|>"], *spelt("assistant\n"), token["<think>"], *spelt("\n\n"), token["</think>"]]
    ids += spelt("\n\n")
    pads = 512 - len(ids)
    encoder = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER)).eval()
    tensors = load(FILES["text_encoder"]) | load(FILES["text_encoder_rest"])
    encoder.load_state_dict({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, strict=True)
    angles = encoder.model.rotary_emb.inv_freq.clone()
    encoder.to(dtype)
    encoder.model.rotary_emb.inv_freq = angles  # stay in float32, as transformers loads them
    with torch.no_grad():
        states = encoder(
            input_ids=torch.tensor([ids + [token["<|endoftext|>"]] * pads]),
            attention_mask=torch.tensor([[1] * len(ids) + [0] * pads]),
            output_hidden_states=True,
        ).hidden_states
    assert torch.equal(engine._prompt, torch.cat([states[layer] for layer in (9, 18, 27)], 2))


def test_one_file_of_the_text_encoder_will_do(engine: KleinEngine) -> None:
    whole = save(load(FILES["text_encoder"]) | load(FILES["text_encoder_rest"]))
    files = {key: data for key, data in FILES.items() if key != "text_encoder_rest"} | {"text_encoder": whole}
    assert torch.equal(load_klein("klein", files, device="cpu", dtype="float32", size=64)._prompt, engine._prompt)


@pytest.mark.parametrize("key", ["transformer", "vae", "text_encoder"])
def test_files_that_lack_a_weight_or_have_one_too_many_are_refused(key: str) -> None:
    tensors = load(FILES[key])
    name = max(tensors)
    for wrong in ({k: v for k, v in tensors.items() if k != name}, {**tensors, "nobody.knows": torch.zeros(1)}):
        with pytest.raises((RuntimeError, ValueError), match=rf"{name}|nobody\.knows"):
            load_klein("klein", {**FILES, key: save(wrong)}, device="cpu", dtype="float32", size=64)


@pytest.mark.parametrize("key", sorted(set(FILES) - {"text_encoder_rest"}))
def test_missing_files_are_named(key: str) -> None:
    files = {name: data for name, data in FILES.items() if name != key}
    with pytest.raises(KeyError, match=key):
        load_klein("klein", files, device="cpu", dtype="float32", size=64)


@pytest.mark.parametrize("size", [0, 48, 100, 1040])
def test_sizes_that_the_network_can_not_hold_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        KleinEngine("klein", None, torch.zeros(1), size=size)


def test_footprint_is_the_whole_crop(engine: KleinEngine, astronaut: Face) -> None:
    matrix = similarity(astronaut.points, POINTS * SIZE)
    roi = engine.footprint(astronaut)
    there = place(matrix, np.array([(roi.x0, roi.y0), (roi.x1, roi.y0), (roi.x0, roi.y1), (roi.x1, roi.y1)], float))
    assert (there.min(0) <= 0).all()
    assert (there.max(0) >= SIZE).all()
