"""What runs the inswapper network on a processor: ONNX Runtime, or torch in float32 and in bfloat16. One file of full
size with random weights, one process, two threads each; seconds a face, at 1 face and at 4 a call.

ONNX Runtime gets the file with its first dimension set free, as the service runs it. Each is warmed up by one call,
the least of ROUNDS calls counts, and the three take turns, so that a busy machine slows all of them.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from nanoswap.pipelines.inswapper_graph import read_weights
from nanoswap.pipelines.onnx_net import set_free
from nanoswap.pipelines.swap_net_torch import InswapperNet
from tests.inswapper_onnx import FULL, build

THREADS = 2
ROUNDS = 3
BATCHES = (1, 4)

Net = Callable[[np.ndarray, np.ndarray], np.ndarray]


def onnx_net(data: bytes) -> Net:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(set_free(data), options, providers=["CPUExecutionProvider"])
    return lambda target, source: np.asarray(session.run(None, {"target": target, "source": source})[0])


def torch_net(data: bytes, dtype: torch.dtype) -> Net:
    net = InswapperNet.of(read_weights(data)).placed("cpu", dtype)

    def call(target: np.ndarray, source: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(torch.from_numpy(target), torch.from_numpy(source)).numpy())

    return call


def main() -> None:
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "full.onnx"
        path.write_bytes(build(FULL, 6))
        data = path.read_bytes()
    nets = {
        "ONNX Runtime": onnx_net(data),
        "torch float32": torch_net(data, torch.float32),
        "torch bfloat16": torch_net(data, torch.bfloat16),
    }
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {THREADS} threads")
    print(f"{'':<16}{'batch':>6}{'s a face':>10}{'ONNX Runtime = 1':>18}{'mean diff.':>12}{'largest':>9}")
    for batch in BATCHES:
        rng = np.random.default_rng(0)
        target = rng.random((batch, 3, 128, 128), dtype=np.float32)
        source = rng.standard_normal((batch, 512)).astype(np.float32)
        source /= np.linalg.norm(source, axis=1, keepdims=True)
        answers = {name: net(target, source) for name, net in nets.items()}
        best = dict.fromkeys(nets, float("inf"))
        for _ in range(ROUNDS):
            for name, net in nets.items():
                started = time.perf_counter()
                net(target, source)
                best[name] = min(best[name], time.perf_counter() - started)
        for name in nets:
            off = np.abs(answers[name] - answers["ONNX Runtime"])
            ratio = best[name] / best["ONNX Runtime"]
            print(f"{name:<16}{batch:>6}{best[name] / batch:>10.2f}{ratio:>18.2f}{off.mean():>12.1e}{off.max():>9.1e}")


if __name__ == "__main__":
    main()
