"""Faces by networks against insightface's loop and FaceFusion's work around its network: 1080p, one and four faces.

The same stand-in networks in the same run. Their own time is measured too, forward by forward, because a real network
takes as long in each of the three ways: what differs is what lies around it, and how often it is called. One OpenCV
thread, one ONNX Runtime thread. Each way finds the faces of every frame anew.

- insightface: ``FaceAnalysis.get`` and, face by face, ``INSwapper.get(paste_back=True)``, as its examples do. Of the
  four networks that its usual pack runs for every face there are two here, in its favour.
- FaceFusion: its steps around the network, stated anew in a few lines from what is known of 3.8.1: alignment by RANSAC,
  a box mask made for every face, pixels scaled in float64, one run per face, paste in the face's rectangle of a copied
  frame. Its own detector and its four further networks per face are left out in its favour.
- ours: `NeuralEngine`, ten frames at a time.
"""

import contextlib
import io
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.model_zoo.inswapper import INSwapper

from nanoswap.pipelines.align import template
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Request
from nanoswap.pipelines.engines import load_engine
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import ModelStore
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.window import Batching
from tests.stand_ins.people import people
from tests.stand_ins.write import write

FRAMES = 10
ROUNDS = 5


@dataclass(frozen=True)
class Timed:
    """Per frame: milliseconds of processor time, those of them in networks, and forwards."""

    milliseconds: float
    networks: float
    forwards: float

    @property
    def around(self) -> float:
        return self.milliseconds - self.networks


class Forwards:
    """Counts and times every forward of every session of this process."""

    def __init__(self) -> None:
        self.count, self.seconds = 0, 0.0
        run = onnxruntime.InferenceSession.run

        def counted(session: Any, *args: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return run(session, *args, **named)
            finally:
                self.count += 1
                self.seconds += time.process_time() - started

        onnxruntime.InferenceSession.run = counted


def scene(faces: int) -> np.ndarray:
    """uint8 (1080, 1920, 3) RGB with one or four heads of about 230 px."""
    frame = np.full((1080, 1920, 3), 120, np.uint8)
    for index in range(faces):
        picture, _ = people()[index % 2].upright(112, 480)
        frame[250:730, index * 480 : (index + 1) * 480] = picture
    return frame


def timed(swap: Callable[[list[np.ndarray]], object], frame: np.ndarray, forwards: Forwards) -> Timed:
    """The fastest of ROUNDS rounds of FRAMES frames; the frames are copied outside the clock."""
    rounds = []
    for _ in range(ROUNDS):
        frames = [frame.copy() for _ in range(FRAMES)]
        forwards.count, forwards.seconds = 0, 0.0
        started = time.process_time()
        swap(frames)
        spent = time.process_time() - started
        rounds.append(Timed(spent / FRAMES * 1000, forwards.seconds / FRAMES * 1000, forwards.count / FRAMES))
    return min(rounds, key=lambda one: one.milliseconds)


def one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def insightface_way(models: Path) -> Callable[[list[np.ndarray]], object]:
    pack = models / "pack"
    pack.mkdir()
    for name in ("det_10g.onnx", "w600k_r50.onnx", "2d106det.onnx"):
        shutil.copy(models / name, pack)
    analysis = FaceAnalysis(name=str(pack), providers=["CPUExecutionProvider"], sess_options=one_thread())
    analysis.prepare(ctx_id=0, det_size=(640, 640))
    path = str(models / "inswapper_128.onnx")
    swapper = INSwapper(path, onnxruntime.InferenceSession(path, one_thread(), providers=["CPUExecutionProvider"]))
    giver = np.ascontiguousarray(people()[1].rgb[..., ::-1])
    source = analysis.get(giver)[0]

    def swap(frames: list[np.ndarray]) -> None:
        for frame in frames:
            result = np.ascontiguousarray(frame[..., ::-1])
            for face in analysis.get(result):
                result = swapper.get(result, face, source, paste_back=True)

    return swap


def facefusion_way(
    models: Path, detect: Callable[[np.ndarray], Any], latent: np.ndarray
) -> Callable[[list[np.ndarray]], object]:
    session = onnxruntime.InferenceSession(
        str(models / "inswapper_128.onnx"), one_thread(), providers=["CPUExecutionProvider"]
    )
    size, blur = 128, int(128 * 0.5 * 0.3)
    target = template(size)

    def face_of(frame: np.ndarray, points: np.ndarray) -> np.ndarray:
        matrix = cv2.estimateAffinePartial2D(points, target, method=cv2.RANSAC, ransacReprojThreshold=100)[0]
        crop = cv2.warpAffine(frame, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE, flags=cv2.INTER_AREA)
        mask = np.ones((size, size), np.float32)
        edge = max(blur // 2, 1)
        mask[:edge], mask[-edge:], mask[:, :edge], mask[:, -edge:] = 0, 0, 0, 0
        mask = cv2.GaussianBlur(mask, (0, 0), blur * 0.25)
        blob = np.expand_dims(((crop / 255.0 - [0.0] * 3) / [1.0] * 3).transpose(2, 0, 1), 0).astype(np.float32)
        made = session.run(None, {"target": blob, "source": latent[None]})[0][0]
        painted = made.transpose(1, 2, 0) * [1.0] * 3 + [0.0] * 3
        painted = painted.clip(0, 1) * 255
        back = cv2.invertAffineTransform(matrix)
        corners = cv2.transform(np.array([[(0, 0), (size, 0), (0, size), (size, size)]], np.float64), back)[0]
        x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
        x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int), frame.shape[1::-1])
        back[:, 2] -= x0, y0
        whole = (int(x1 - x0), int(y1 - y0))
        weight = np.expand_dims(cv2.warpAffine(mask, back, whole).clip(0, 1), -1)
        there = cv2.warpAffine(painted, back, whole, borderMode=cv2.BORDER_REPLICATE)
        result = frame.copy()
        result[y0:y1, x0:x1] = (result[y0:y1, x0:x1] * (1 - weight) + there * weight).astype(np.uint8)
        return result

    def swap(frames: list[np.ndarray]) -> None:
        for frame in frames:
            result = frame
            for face in detect(frame):
                result = face_of(result, face.points)

    return swap


def main() -> None:
    warnings.simplefilter("ignore")
    cv2.setNumThreads(1)
    forwards = Forwards()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        models = Path(folder)
        manifest = Manifest.read(write(models, leave_out=("xseg_1", "gfpgan_1_4")))
        theirs = insightface_way(models)
        (models / "2d106det.onnx").unlink()  # as theirs: the edge is a box
        runtime = Runtime(threads=1, batching=Batching(most=64, wait=0.0))
        engine = load_engine("inswapper", manifest, ModelStore(models, manifest), runtime, Style())
        giver = people()[1].rgb
        source: Any = engine.prepare(giver, engine.detect(giver)[0])
        fusion = facefusion_way(models, engine.detect, source.latent)

    def ours(frames: list[np.ndarray]) -> None:
        found = [(frame, face) for frame in frames for face in engine.detect(frame)]
        for at in range(0, len(found), engine.batch):
            engine.swap(found[at : at + engine.batch], source, Request(CancelToken()))

    columns = ("ms a frame", "in networks", "around them", "forwards", "whole: ours is", "around: ours is")
    print(f"{'1080p':<24}" + "".join(f"{name:>17}" for name in columns))
    for faces in (1, 4):
        frame = scene(faces)
        assert len(engine.detect(frame)) == faces
        ways = {"insightface": theirs, "FaceFusion": fusion, "ours": ours}
        results = {name: timed(swap, frame, forwards) for name, swap in ways.items()}
        best = results["ours"]
        for name, one in results.items():
            print(
                f"{f'{faces} faces, {name}':<24}{one.milliseconds:>17.1f}{one.networks:>17.1f}{one.around:>17.1f}"
                f"{one.forwards:>17.1f}{one.milliseconds / best.milliseconds:>16.2f}x{one.around / best.around:>16.2f}x"
            )


if __name__ == "__main__":
    main()
