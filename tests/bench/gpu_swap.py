"""The inswapper network of full size on a GPU, with random weights: faces a second, and how much of the device that is.

Needs torch, numpy and this package's two files of the network, nothing else: ``python -m tests.bench.gpu_swap``, or
``python tests/bench/gpu_swap.py`` where the package can be imported. One call is timed as it is served: bytes from the
host, the network, bytes back to the host. The ceiling is a square matrix product of the same type in the same run, so
that a share means the same on every device. Without a CUDA device nothing is measured and the program says so;
``--smoke`` runs the same code with a narrow network on the processor, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nanoswap.pipelines.inswapper_net import InswapperNet, Plan, published
from nanoswap.pipelines.swap_net_torch import DTYPES, ROWS, TorchSwapNet

SECONDS = 1.0  # of calls per line, at least CALLS of them
CALLS = 8
MATRIX = 8192


def random_net(plan: Plan) -> InswapperNet:
    """Weights that keep the features' spread from layer to layer, as training does: zeros flatter a GPU's clock."""
    net = InswapperNet(plan)
    generator = torch.Generator().manual_seed(0)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.normal_(layer.bias, std=0.1, generator=generator)
    nn.init.normal_(net.styles.weight, std=0.5, generator=generator)
    nn.init.normal_(net.styles.bias, std=0.2, generator=generator)
    net.styles.bias.view(-1, 2, plan.stem[-1].outputs)[:, 0] += 1
    return net


def flop(plan: Plan) -> int:
    """Floating-point operations per face, counted by torch."""
    with torch.device("meta"):
        net = InswapperNet(plan)
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, plan.size, plan.size), torch.empty(1, plan.latent))
    return int(counter.get_total_flops())


def seconds(call: Callable[[], object], device: str) -> float:
    """Median of a call, which is waited for. On the processor only the code is tried, not the time."""

    def once() -> float:
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    for _ in range(3):
        once()
    times: list[float] = []
    while len(times) < CALLS or (device == "cuda" and sum(times) < SECONDS):
        times.append(once())
    return statistics.median(times)


def ceiling(device: str, dtype: torch.dtype, side: int) -> float:
    """FLOP/s of a square matrix product; float32 as TF32, like the convolutions."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.set_float32_matmul_precision("high")
    try:
        return 2 * side**3 / seconds(lambda: a @ b, device)
    finally:
        torch.set_float32_matmul_precision("highest")


def memory(device: str) -> str:
    return f"{torch.cuda.max_memory_reserved() / 2**20:.0f}" if device == "cuda" else "-"


def faces(plan: Plan, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((rows, plan.latent)).astype(np.float32)
    crops = rng.integers(0, 256, (rows, plan.size, plan.size, 3), dtype=np.uint8)
    return crops, latents / np.linalg.norm(latents, axis=1, keepdims=True)


def measure(net: TorchSwapNet, name: str, plan: Plan, device: str, rows: tuple[int, ...], peak: float) -> None:
    each = flop(plan)
    for count in rows:
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        crops, latents = faces(plan, count)
        took = seconds(lambda crops=crops, latents=latents: net(crops, latents), device)  # type: ignore[misc]
        rate = count * each / took
        print(
            f"{name:<18}{count:>6}{count / took:>12.1f}{took * 1000:>12.3f}{rate / 1e12:>10.2f}"
            f"{rate / peak:>9.1%}{memory(device):>14}",
            flush=True,
        )


def bench(device: str, plan: Plan, rows: tuple[int, ...], side: int) -> None:
    crops, latents = faces(plan, rows[-1])
    print(f"{flop(plan) / 1e9:.2f} GFLOP a face")
    print(f"to the device {(crops.nbytes + latents.nbytes) // len(crops)} bytes a face, back {crops[0].nbytes}")
    master = random_net(plan)
    exact: np.ndarray | None = None
    for kind, dtype in DTYPES.items():
        peak = ceiling(device, dtype, side)
        print(f"\n{kind}: ceiling {peak / 1e12:.2f} TFLOP/s, product of {side} x {side}")
        print(f"{'':<18}{'batch':>6}{'faces/s':>12}{'ms a call':>12}{'TFLOP/s':>10}{'share':>9}{'reserved MiB':>14}")
        net = copy.deepcopy(master)
        eager = TorchSwapNet(net, device=device, dtype=dtype, graphs=False)
        measure(eager, f"{kind} eager", plan, device, rows, peak)
        given = eager(crops, latents).crops.astype(int)
        exact = given if exact is None else exact
        print(f"{kind}: {np.abs(given - exact).mean():.3f} of 255 from float32 eager on average")
        if device != "cuda":
            print("graphs: not run, the processor has none")
            continue
        graphs = TorchSwapNet(net, device=device, dtype=dtype, graphs=True)
        measure(graphs, f"{kind} graphs", plan, device, rows, peak)
        recorded = graphs(crops, latents).crops
        print(f"{kind}: graphs {np.abs(recorded - given).max()} of 255 from eager at most")
        other = crops.copy()
        other[1:] = 255 - other[1:]
        same = np.array_equal(graphs(other, latents).crops[0], recorded[0])
        print(f"{kind}: row 0 {'stays' if same else 'DOES NOT STAY'} the same when all others change")
        del eager, graphs, net


def main() -> int:
    parser = argparse.ArgumentParser(description="inswapper's network on a GPU")
    parser.add_argument("--smoke", action="store_true", help="a narrow network on the processor; figures mean nothing")
    smoke = parser.parse_args().smoke
    if not smoke and not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    print(f"torch {torch.__version__}")
    if smoke:
        print("smoke: a narrow network on the processor, figures mean nothing")
        bench("cpu", published((8, 16, 24, 32), 2, size=32), ROWS[:3], 64)
    else:
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
        print(f"float32 convolutions as TF32: {torch.backends.cudnn.allow_tf32}")
        bench("cuda", published(), ROWS, MATRIX)
    return 0


if __name__ == "__main__":
    sys.exit(main())
