"""Paste-back against insightface's own, on one stand-in network in one run: process CPU time, one OpenCV thread.

The rival is ``INSwapper.get(paste_back=True)`` minus ``get(paste_back=False)`` of the installed insightface: what its
paste-back costs beyond the network. Ours is ``nanoswap.pipelines.paste.paste`` with the mask made once. A face of
324 px at 1080p and at 4K.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import onnxruntime
from insightface.model_zoo.inswapper import INSwapper
from onnx import TensorProto, helper, numpy_helper

from nanoswap.pipelines.paste import feather, paste

FACE = 324
ROUNDS = 15
#: Eyes, nose and mouth corners in a crop of 112 px (ArcFace's template).
POINTS = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])


def stand_in(folder: Path) -> Path:
    """A network with inswapper's inputs, output and trailing projection matrix that gives its target back."""
    target = helper.make_tensor_value_info("target", TensorProto.FLOAT, [1, 3, 128, 128])
    source = helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, 512])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 128, 128])
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    projection = numpy_helper.from_array(np.eye(512, dtype=np.float32), "emap")
    nodes = [
        helper.make_node("ReduceMean", ["source"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["target", "nothing"], ["output"]),
    ]
    graph = helper.make_graph(nodes, "stand-in", [target, source], [output], [zero, projection])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "stand-in.onnx"
    onnx.save(model, path)
    return path


def cpu(call: Callable[[], object]) -> float:
    """Least process CPU time of ROUNDS calls, ms."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best * 1000


def main() -> None:
    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = str(stand_in(Path(folder)))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        swapper = INSwapper(model_file=path, session=session)
    source = SimpleNamespace(normed_embedding=np.full(512, 512**-0.5, np.float32))
    print(f"{'':<8}{'insightface ms':>16}{'ours ms':>10}{'ratio':>8}")
    for name, (width, height) in {"1080p": (1920, 1080), "4K": (3840, 2160)}.items():
        frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
        points = (POINTS * FACE / 112 + (width / 2 - FACE / 2, height / 2 - FACE / 2)).astype(np.float32)
        face = SimpleNamespace(kps=points)
        theirs, ours = compare(swapper, frame, face, source)
        print(f"{name:<8}{theirs:>16.1f}{ours:>10.2f}{theirs / ours:>7.0f}x")


def compare(
    swapper: INSwapper, frame: np.ndarray, face: SimpleNamespace, source: SimpleNamespace
) -> tuple[float, float]:
    """CPU ms of their paste-back and of ours for the same crop."""
    mask = feather(128)
    crop, matrix = swapper.get(frame, face, source, paste_back=False)
    whole = cpu(lambda: swapper.get(frame, face, source, paste_back=True))
    bare = cpu(lambda: swapper.get(frame, face, source, paste_back=False))
    return whole - bare, cpu(lambda: paste(frame, crop, mask, matrix))


if __name__ == "__main__":
    main()
