"""The safety gate: what a classifier is shown, how its answer is read, what is refused; and every doubt refuses."""

import logging
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nanoswap.pipelines import classifier as classifier_module
from nanoswap.pipelines.card import Card
from nanoswap.pipelines.classifier import Classifier, judged
from nanoswap.pipelines.classifier_gate import ClassifierGate
from nanoswap.pipelines.errors import ContentRefused
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.gate_load import GateUnusable, check_gate, load_gate
from nanoswap.pipelines.manifest import Manifest, ManifestError
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.model_store import ModelCorrupt, ModelError, ModelMissing, ModelStore
from nanoswap.pipelines.runtime import DeviceMissing, Runtime
from tests.clips import portrait
from tests.stand_ins.gate import CYAN, MAGENTA

CARD = Card(side=32, classes=("fine", "not"), refused=("not",), threshold=0.25, source="nobody")
YEARS = replace(
    CARD, classes=("man", "woman", "years"), refused=("years",), gives="years", factor=100.0, threshold=25.0
)
BUILT_IN = Manifest.read()


class Net:
    """In a network's place: keeps what it was shown, answers what it was told."""

    def __init__(self, answer: object = (5.0, -5.0)) -> None:
        self.answer = answer
        self.shown: list[np.ndarray] = []
        self.copies: list[np.ndarray] = []
        self.given: list[np.ndarray] = []

    def forward(self, blob: np.ndarray) -> list[np.ndarray]:
        self.shown.append(blob)
        self.copies.append(blob.copy())
        if isinstance(self.answer, Exception):
            raise self.answer
        self.given = [np.tile(np.asarray(self.answer, np.float32), (len(blob), 1))]
        return self.given


def classifier(card: Card = CARD, answer: object = (5.0, -5.0)) -> tuple[Classifier, Net]:
    net = Net((5.0, -5.0) if card.gives != "years" else (0, 0, 1))
    made = Classifier(net, card)  # type: ignore[arg-type]
    net.answer = answer
    net.shown.clear(), net.copies.clear()
    return made, net


def face(x0: float, y0: float, x1: float, y1: float, size: tuple[int, int] = (512, 512)) -> Face:
    points = np.zeros((5, 2), np.float32)
    return Face(box=np.array([x0, y0, x1, y1], np.float32), points=points, score=1.0, frame=size)


@pytest.mark.parametrize(
    ("card", "answer", "refused"),
    [
        (CARD, [0.0, -1.0], True),  # softmax 0.27
        (CARD, [0.0, -1.2], False),  # 0.23
        (CARD, [900.0, 900.0], True),
        (replace(CARD, gives="probabilities"), [0.74, 0.26], True),
        (replace(CARD, gives="probabilities"), [0.75, 0.25], False),
        # FaceFusion's rules for Marqo's and Freepik's classifiers.
        (replace(CARD, gives="margin", refused=("fine",)), [0.3, 0.0], True),
        (replace(CARD, gives="margin", refused=("fine",)), [0.2, 0.0], False),
        (replace(CARD, gives="margin", classes=tuple("abcd"), refused=("c", "d"), threshold=10.5), [1, 1, 6, 7], True),
        (replace(CARD, gives="margin", classes=tuple("abcd"), refused=("c", "d"), threshold=10.5), [1, 1, 6, 6], False),
        (YEARS, [9, 9, 0.249], True),
        (YEARS, [9, 9, 0.25], False),
    ],
)  # fmt: skip
def test_answers_are_read_as_the_card_says(card: Card, answer: list[float], refused: bool) -> None:
    which = np.isin(card.classes, card.refused)
    assert judged(np.array([answer], np.float32), 1, which, card).tolist() == [refused]


@pytest.mark.parametrize(
    ("card", "answer"),
    [
        (CARD, [[np.nan, 0.0]]),
        (CARD, [[-np.inf, 0.0]]),
        (CARD, [[1.0, 0.0, 0.0]]),
        (CARD, [[1.0, 0.0], [1.0, 0.0]]),
        (CARD, [1.0, 0.0]),
        (replace(CARD, gives="probabilities"), [[3.0, -2.0]]),
        (replace(CARD, gives="probabilities"), [[0.1, 0.1]]),
        (YEARS, [[1, 1, np.nan]]),
    ],
)
def test_answer_that_can_not_be_read_is_never_a_yes(card: Card, answer: object) -> None:
    with pytest.raises(ValueError, match="the network's answer"):
        judged(np.array(answer, np.float32), 1, np.isin(card.classes, card.refused), card)


def test_network_is_shown_what_its_card_says() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:] = (255, 51, 0)
    scaled = replace(CARD, mean=(0.5, 0.2, 0.0), std=(0.5, 0.1, 2.0))
    for card, channels in (
        (scaled, (1.0, 0.0, 0.0)),
        (replace(scaled, colours="bgr"), (-1.0, 0.0, 0.5)),
    ):
        for layout in ("nchw", "nhwc"):
            made, net = classifier(replace(card, layout=layout))
            made([picture, picture])
            (shown,) = net.copies
            assert shown.dtype == np.float32
            assert net.shown[0].flags.c_contiguous
            assert shown.shape == ((2, 3, 32, 32) if layout == "nchw" else (2, 32, 32, 3))
            means = shown.mean((0, 2, 3) if layout == "nchw" else (0, 1, 2))
            assert np.allclose(means, channels, atol=1e-5), (card.colours, layout)


def test_picture_is_fitted_as_the_card_says() -> None:
    picture = np.full((20, 40, 3), 255, np.uint8)
    for fit, rows in (("stretch", 32), ("inside", 16)):
        made, net = classifier(replace(CARD, fit=fit))  # type: ignore[arg-type]
        made([picture])
        lit = net.copies[0][0, 0] > 0.5
        assert (lit.sum(), lit.any(1).sum()) == (rows * 32, rows)
        assert lit[16].all()


def test_small_detail_of_a_large_picture_is_not_stepped_over() -> None:
    picture = np.zeros((3200, 3200, 3), np.uint8)
    picture[:, 37] = 255
    made, net = classifier()
    made([picture])
    assert net.copies[0].max() > 0.005


def test_nothing_of_a_look_is_left_and_the_picture_is_as_it_was() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    before = picture.copy()
    for answer in ((5.0, -5.0), RuntimeError("no")):
        made, net = classifier(answer=answer)
        gate = ClassifierGate([made], [made])
        for check in (gate.check_content, gate.check_ages):
            try:
                check(picture, [face(8, 8, 24, 24, (32, 32))])
            except ContentRefused:
                assert isinstance(answer, Exception)
        assert len(net.shown) == 2
        assert all(copy.any() for copy in net.copies)
        assert not any(blob.any() for blob in net.shown)
        assert not any(each.any() for each in net.given)
        assert np.array_equal(picture, before)


def kept_of(monkeypatch: pytest.MonkeyPatch, module: object, name: str, fails_at: int = 10**6) -> list[np.ndarray]:
    """What a function of a library answers from now on; its call of that number fails when it is done."""
    real, kept = getattr(module, name), list[np.ndarray]()

    def watched(*given: Any, **more: Any) -> np.ndarray:
        answer = real(*given, **more)
        kept.append(answer)
        if len(kept) == fails_at:
            raise RuntimeError
        return answer

    monkeypatch.setattr(module, name, watched)
    return kept


@pytest.mark.parametrize("fails", ["the second face", "its border"])
def test_crops_that_were_made_before_one_failed_are_overwritten(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    age, _ = classifier(YEARS, (0, 0, 1))
    content, _ = classifier()
    resized = kept_of(monkeypatch, cv2, "resize")
    border, real = list[np.ndarray](), cv2.copyMakeBorder

    def bordered(*given: Any) -> np.ndarray:
        if fails == "its border" and border:
            raise cv2.error
        border.append(real(*given))
        return border[-1]

    monkeypatch.setattr(cv2, "copyMakeBorder", bordered)
    second = face(9000, 9000, 9100, 9100) if fails == "the second face" else face(100, 100, 200, 200)
    with pytest.raises(ContentRefused):
        ClassifierGate([content], [age]).check_ages(portrait("astronaut"), [face(180, 60, 280, 160), second])
    assert len(border) == 1
    assert len(resized) == (1 if fails == "the second face" else 2)
    assert not any(each.any() for each in (*border, *resized))


@pytest.mark.parametrize("fails", ["fit", "scaling"])
def test_batch_that_was_half_made_is_overwritten(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    made, _ = classifier()
    batches, real = list[np.ndarray](), classifier_module._fit

    def fit(picture: np.ndarray, square: np.ndarray, card: Card) -> None:
        real(picture, square, card)
        batches.append(square.base)
        assert square.any()
        if fails == "fit" and len(batches) == 2:
            raise RuntimeError

    monkeypatch.setattr(classifier_module, "_fit", fit)
    planes = kept_of(monkeypatch, np, "multiply", 2)
    with pytest.raises(RuntimeError):
        made([portrait("astronaut"), portrait("hopper")])
    assert not any(each.any() for each in batches)
    assert len(planes) == (0 if fails == "fit" else 2)
    assert not any(each.any() for each in planes)


def test_resized_picture_that_does_not_fit_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    resized = kept_of(monkeypatch, cv2, "resize")
    with pytest.raises(ValueError, match="broadcast"):
        classifier_module._fit(portrait("astronaut"), np.zeros((5, 7, 3), np.uint8), CARD)
    assert len(resized) == 1
    assert not resized[0].any()


def test_many_faces_go_in_parts() -> None:
    made, net = classifier()
    picture = np.full((600, 600, 3), 90, np.uint8)
    assert made([picture] * 40).tolist() == [False] * 40
    assert [len(blob) for blob in net.shown] == [16, 16, 8]


def test_age_is_asked_of_a_square_round_each_face() -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[50:110, 100:140] = 255
    made, net = classifier(replace(CARD, side=90))
    ClassifierGate([made], [made]).check_ages(picture, [face(100, 50, 140, 110, (300, 200))])
    (shown,) = net.copies
    # 60 px and half of it more is 90: the box lies in the middle, in its own pixels.
    lit = shown[0, 0] > 0.5
    assert lit[15:75, 25:65].all()
    assert lit.sum() == 60 * 40


def test_face_at_the_edge_goes_on_with_the_edge() -> None:
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[:, 0] = 255
    made, net = classifier(replace(CARD, side=60))
    gate = ClassifierGate([made], [made])
    gate.check_ages(picture, [face(0, 20, 40, 60, (100, 100))])
    (shown,) = net.copies
    assert (shown[0, 0][:, :10] > 0.9).all()
    assert (shown[0, 0][:, 11:] < 0.1).all()
    with pytest.raises(ContentRefused):
        gate.check_ages(picture, [face(-400, 20, -360, 60, (100, 100))])


def test_body_of_each_face_is_looked_at_besides_the_whole() -> None:
    crowd = np.full((2000, 3000, 3), 90, np.uint8)
    small, large = face(1400, 300, 1450, 350, (3000, 2000)), face(100, 100, 1900, 1900, (3000, 2000))
    made, net = classifier()
    ClassifierGate([made], [made]).check_content(crowd, [small, large])
    # The large one's body would be the whole picture again.
    assert [len(blob) for blob in net.shown] == [2]


def test_intimate_person_in_a_large_picture_is_seen(gate: Gate) -> None:
    crowd = np.full((2000, 3000, 3), 90, np.uint8)
    crowd[400:520, 1380:1470] = MAGENTA
    with pytest.raises(ContentRefused):
        gate.check_content(crowd, [face(1400, 300, 1450, 350, (3000, 2000))])
    # Without a face there is nothing to look closer at: the whole alone doesn't show it. A limit, and a known one.
    gate.check_content(crowd, [])


@pytest.mark.parametrize("name", ["astronaut", "hopper"])
def test_stand_ins_are_steered_by_colour(gate: Gate, name: str) -> None:
    rgb = portrait(name).copy()
    faces = MeshEngine().detect(rgb)
    gate.check_content(rgb, faces)
    gate.check_ages(rgb, faces)
    x0, y0, x1, y1 = faces[0].box.astype(int)
    rgb[y1 : y1 + 60] = MAGENTA
    with pytest.raises(ContentRefused) as refusal:
        gate.check_content(rgb, faces)
    assert refusal.value.reason == "content"
    rgb[y1 : y1 + 60] = 90
    cv2.circle(rgb, (int((x0 + x1) / 2), int((y0 + y1) / 2)), int((x1 - x0) / 6), CYAN, -1)
    gate.check_content(rgb, faces)
    with pytest.raises(ContentRefused) as refusal:
        gate.check_ages(rgb, faces)
    assert refusal.value.reason == "age"
    # It says no more to who asked.
    assert str(refusal.value) == str(ContentRefused())
    gate.check_ages(rgb, [])


def test_one_classifier_that_refuses_is_enough() -> None:
    fine, fine_net = classifier()
    refusing, _ = classifier(answer=(-5.0, 5.0))
    picture, faces = np.full((64, 64, 3), 90, np.uint8), [face(8, 8, 24, 24, (64, 64))]
    for content, ages, bad in (
        ([fine, refusing], [fine], "check_content"), ([refusing, fine], [fine], "check_content"),
        ([fine], [fine, refusing], "check_ages"),
    ):  # fmt: skip
        gate = ClassifierGate(content, ages)
        for name in ("check_content", "check_ages"):
            if name != bad:
                getattr(gate, name)(picture, faces)
                continue
            with pytest.raises(ContentRefused):
                getattr(gate, name)(picture, faces)
    assert fine_net.shown
    with pytest.raises(ValueError, match="a classifier of content and one of ages"):
        ClassifierGate([fine], [])


@pytest.mark.parametrize("answer", [RuntimeError("a number of somebody's picture: 17"), (np.nan, 1.0), (1.0, 2.0, 3.0)])
def test_classifier_that_fails_refuses_and_says_nothing(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = classifier(answer=answer)
    gate = ClassifierGate([made], [made])
    picture, faces = np.full((64, 64, 3), 90, np.uint8), [face(8, 8, 24, 24, (64, 64))]
    for check in (gate.check_content, gate.check_ages):
        with caplog.at_level(logging.DEBUG), pytest.raises(ContentRefused) as refusal:
            check(picture, faces)
        assert refusal.value.reason == "unsure"
        # The failed call's frames hold pixels: they don't travel on.
        assert refusal.value.__context__ is None
        assert refusal.value.__cause__ is None
    kind = "RuntimeError" if isinstance(answer, Exception) else "ValueError"
    said = {record.getMessage() for record in caplog.records}
    assert said == {f"a classifier of the safety gate failed, so it refused: {kind}"}
    assert not any(record.exc_info for record in caplog.records)


def test_refusal_is_one_sentence_whatever_it_was(gate: Gate) -> None:
    texts = set()
    for check in (gate.check_content, gate.check_ages):
        for colour in (MAGENTA, CYAN):
            try:
                check(np.full((64, 64, 3), colour, np.uint8), [face(8, 8, 24, 24, (64, 64))])
            except ContentRefused as refusal:
                texts.add(str(refusal))
    assert len(texts) == 1


def stored(manifest: Path, folder: Path) -> tuple[Manifest, ModelStore]:
    read = Manifest.read(manifest)
    return read, ModelStore(folder, read)


def test_gate_that_lacks_a_file_names_the_command(models: Path, tmp_path: Path) -> None:
    manifest = Manifest.read(models / "models.toml")
    store = ModelStore(tmp_path, manifest)
    for attempt in (check_gate, load_gate):
        with pytest.raises(ModelMissing, match=r"vit_nsfw_384, fairface_age_224.*run nanoswap models pull gate$"):
            attempt(manifest, store, Runtime())
    for name in manifest.gate:
        (tmp_path / manifest.models[name].file).write_bytes(store.model(name).name.encode())
    for attempt in (check_gate, load_gate):
        with pytest.raises(ModelCorrupt):
            attempt(manifest, store, Runtime())


def test_gate_that_the_manifest_does_not_have(models: Path, tmp_path: Path) -> None:
    text = (models / "models.toml").read_text("utf-8")
    (tmp_path / "models.toml").write_text(text[: text.index("[gate]")], "utf-8")
    manifest, store = stored(tmp_path / "models.toml", models)
    assert manifest.gate == ()
    for attempt in (check_gate, load_gate):
        with pytest.raises(GateUnusable, match="manifest has none"):
            attempt(manifest, store, Runtime())


def test_card_of_another_file_is_the_operators_error_at_start(models: Path, tmp_path: Path) -> None:
    text = (models / "models.toml").read_text("utf-8")
    for was, becomes in (
        ('classes = ["sfw", "nsfw"]', 'classes = ["sfw", "soft", "nsfw"]'),
        ("side = 384", "side = 224"),
        ('gives = "logits"', 'gives = "probabilities"'),
        ("output = 0", "output = 1"),
        ('layout = "nchw"', 'layout = "nhwc"'),
    ):
        start = text.index("[models.vit_nsfw_384.card]")
        assert was in text[start:]
        (tmp_path / "models.toml").write_text(text[:start] + text[start:].replace(was, becomes, 1), "utf-8")
        manifest, store = stored(tmp_path / "models.toml", models)
        with pytest.raises(GateUnusable, match="vit_nsfw_384 of the safety gate can't be loaded"):
            load_gate(manifest, store, Runtime(threads=1))


def test_device_that_is_not_there_is_an_error_and_never_another(models: Path) -> None:
    manifest, store = stored(models / "models.toml", models)
    for attempt in (check_gate, load_gate):
        with pytest.raises(DeviceMissing):
            attempt(manifest, store, Runtime(device="cuda"))


def test_swaps_without_a_gate_import_no_runtime() -> None:
    code = (
        "import sys, nanoswap.pipelines.swap, nanoswap.pipelines.swap_clip, nanoswap.serve.settings;"
        "print({'onnx', 'onnxruntime'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def changed(**of: Any) -> Card:
    return replace(CARD, **of)


@pytest.mark.parametrize(
    ("of", "named"),
    [
        ({"gives": "guesses"}, "gives is one of"),
        ({"fit": "crop"}, "fit is one of"),
        ({"colours": "yuv"}, "colours is one of"),
        ({"layout": "chw"}, "layout is one of"),
        ({"side": 8}, "side is from 16"),
        ({"reach": 0.5}, "reach is from 1"),
        ({"output": -1}, "output is from 0"),
        ({"mean": (0.5,)}, "three finite numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "three finite numbers"),
        ({"threshold": float("nan")}, "three finite numbers"),
        ({"factor": 0.0}, "factor is above 0"),
        ({"classes": ()}, "classes are one or more"),
        ({"classes": ("not", "not")}, "classes are one or more, all different"),
        ({"refused": ()}, "refused are one or more"),
        ({"refused": ("other",)}, "refused are one or more of the classes"),
        ({"refused": ("fine", "not")}, "not all"),
        ({"threshold": 1.0}, "above 0 and below 1"),
        ({"threshold": 0.0}, "above 0 and below 1"),
        ({"gives": "years", "threshold": 17.9}, "at least 18"),
        ({"gives": "years", "threshold": 18.0, "refused": ("fine", "not")}, "one class is refused"),
    ],
)
def test_cards_that_can_not_be_meant(of: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        changed(**of)


def test_built_in_gate_refuses_minors_with_a_margin() -> None:
    roles = {BUILT_IN.models[name].role: BUILT_IN.models[name] for name in BUILT_IN.gate}
    assert set(roles) == {"content", "age"}
    ages, content = roles["age"].card, roles["content"].card
    assert ages is not None
    assert content is not None
    # Every band that has somebody under 18 in it, and then up to 19.
    assert ages.refused == ("0-2", "3-9", "10-19")
    assert ages.classes[3] == "20-29"
    # Both below what would be even odds.
    assert (ages.threshold, content.threshold) == (0.25, 0.25)
    assert all(model.licence.commercial for model in roles.values())
    assert all(model.sha256 and model.revision != "main" and model.revision in model.url for model in roles.values())


GATE = '[gate]\nneeds = ["vit_nsfw_384", "fairface_age_224"]'
CONTENT = 'role = "content"'


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        (GATE, GATE + '\nuses = ["xseg_1"]', "the gate is a table with the list 'needs' and nothing else"),
        (GATE, "[gate]\nneeds = 3", "the gate is a table"),
        (GATE, '[gate]\nneeds = ["vit_nsfw_384"]', "the gate needs a model for: age"),
        (GATE, '[gate]\nneeds = ["fairface_age_224"]', "the gate needs a model for: content"),
        (GATE, "[gate]\nneeds = []", "the gate needs a model for: age, content"),
        (GATE, GATE.replace('"vit', '"xseg_1", "vit'), "the gate has no use for: occluder"),
        (GATE, GATE.replace('"vit_nsfw_384"', '"vit"'), "the gate names a model that the manifest doesn't have: vit"),
        (GATE, GATE.replace('"vit', '"vit_nsfw_384", "vit'), "names a model twice"),
        (GATE, GATE + '\n[engines.gate]\nlabel = "x"\nkind = "mesh"\nlicence = "x"', "that is the gate's own name"),
        (CONTENT, 'role = "occluder"', "model 'vit_nsfw_384' of role occluder has a card"),
        ("[models.vit_nsfw_384.card]", "[models.gfpgan_1_4.card]", "model 'gfpgan_1_4' of role enhancer has a card"),
        ("[models.vit_nsfw_384.card]\nside = 384", "[models.vit_nsfw_384.card]", "says nothing of its side"),
        ("side = 384", "side = 384\nsides = 1", "card of model 'vit_nsfw_384' has a key that nobody knows: sides"),
        ("side = 384", "side = 384.0", "card of model 'vit_nsfw_384' has a side that is no whole number"),
        ("side = 384", "side = 4", "card of model 'vit_nsfw_384': side is from 16"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0, 1, 2]", "has a mean that is no list of numbers with a point"),
        ("mean = [0.5, 0.5, 0.5]", "mean = 0.5", "has a mean that is no list"),
        ('refused = ["nsfw"]', "refused = [1]", "has a refused that is no list of texts"),
        ('refused = ["nsfw"]\n', 'gives = "years"\nrefused = ["nsfw"]\n', "at least 18"),
    ],
)  # fmt: skip
def test_gate_and_cards_that_make_no_sense_are_named(tmp_path: Path, was: str, becomes: str, named: str) -> None:
    text = resources.files("nanoswap.pipelines").joinpath("models.toml").read_text("utf-8")
    assert was in text
    (tmp_path / "models.toml").write_text(text.replace(was, becomes, 1), "utf-8")
    with pytest.raises(ManifestError) as error:
        Manifest.read(tmp_path / "models.toml")
    assert named in str(error.value)


def test_content_is_not_told_in_years(tmp_path: Path) -> None:
    text = resources.files("nanoswap.pipelines").joinpath("models.toml").read_text("utf-8")
    start = text.index("[models.vit_nsfw_384.card]")
    wrong = text[start:].replace("threshold = 0.25", 'gives = "years"\nthreshold = 25.0', 1)
    (tmp_path / "models.toml").write_text(text[:start] + wrong, "utf-8")
    with pytest.raises(ManifestError, match="role content can't give years"):
        Manifest.read(tmp_path / "models.toml")


def test_refusals_of_loading_are_model_errors() -> None:
    assert issubclass(GateUnusable, ModelError)
