"""What runs the inswapper network on a processor: ONNX Runtime, or torch in float32 and in bfloat16. One file of full
size with random weights, one process, two threads each; 1 face and 4 a call. Seconds of the clock and of the process's
CPU time: where others use the machine, only the latter compares. Times as parts of ONNX Runtime's: clock, CPU.

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
from nanoswap.pipelines.inswapper_net import InswapperNet
from nanoswap.pipelines.onnx_net import set_free
from tests.inswapper_onnx import FULL, build

THREADS = 2
ROUNDS = 2
BATCHES = (1, 4)

Net = Callable[[np.ndarray, np.ndarray], np.ndarray]


def onnx_net(data: bytes) -> Net:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 3
    # As in the service; a thread that waits would count as work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
    print(f"{'':<16}{'batch':>6}{'s a face':>10}{'CPU s':>8}{'of ONNX Runtime':>18}{'mean off':>10}{'most':>9}")
    for batch in BATCHES:
        rng = np.random.default_rng(0)
        target = rng.random((batch, 3, 128, 128), dtype=np.float32)
        source = rng.standard_normal((batch, 512)).astype(np.float32)
        source /= np.linalg.norm(source, axis=1, keepdims=True)
        answers = {name: net(target, source) for name, net in nets.items()}
        best = dict.fromkeys(nets, (float("inf"), float("inf")))
        for _ in range(ROUNDS):
            for name, net in nets.items():
                clock, cpu = time.perf_counter(), time.process_time()
                net(target, source)
                took = time.perf_counter() - clock, time.process_time() - cpu
                best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
        for name in nets:
            off = np.abs(answers[name] - answers["ONNX Runtime"])
            clock, cpu = best[name]
            ratios = f"{clock / best['ONNX Runtime'][0]:.2f}, {cpu / best['ONNX Runtime'][1]:.2f}"
            print(f"{name:<16}{batch:>6}{clock / batch:>10.2f}{cpu / batch:>8.2f}{ratios:>18}", end="")
            print(f"{off.mean():>10.1e}{off.max():>9.1e}")


if __name__ == "__main__":
    main()
