"""From files of weights to the engine of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
from nanoswap.pipelines.blob import Scaling
from nanoswap.pipelines.enhance import Enhancer
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.manifest import Model
from nanoswap.pipelines.masks import Occluder
from nanoswap.pipelines.neural import Networks, NeuralEngine
from nanoswap.pipelines.onnx_arena import shared_arena
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.roles import Role
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.swap_net import SwapNet
from nanoswap.pipelines.swap_net_onnx import OnnxSwapNet, find_projection, project


def load_neural(name: str, files: Mapping[Role, bytes], swapper: Model, runtime: Runtime, style: Style) -> NeuralEngine:
    """files: of the manifest's roles, those that an engine of this kind needs and others that it uses. swapper: what
    the manifest says of the file of that role. Raises whatever the libraries raise for files that are something else.
    """

    rinses: list[Callable[[], None]] = [shared_arena().rinse]

    def net(role: Role) -> OnnxNet:
        made = OnnxNet.of(files[role], runtime)
        rinses.append(made.rinse)
        return made

    painter, latent = _swapper(swapper, files["swapper"], net("swapper"), runtime, rinses)
    networks = Networks(
        detector=Detector(net("detector")),
        encoder=Encoder(net("encoder"), files["encoder"]),
        swapper=painter,
        latent=latent,
        landmarks=Landmarks(net("landmarks"), files["landmarks"]) if "landmarks" in files else None,
        occluder=Occluder(net("occluder")) if "occluder" in files else None,
        enhancer=Enhancer(net("enhancer")) if "enhancer" in files else None,
    )

    def rinse() -> None:
        for each in rinses:
            each()

    return NeuralEngine(name, networks, style, rinse=rinse)


def _swapper(
    model: Model, data: bytes, net: OnnxNet, runtime: Runtime, rinses: list[Callable[[], None]]
) -> tuple[SwapNet, Callable[[Floats], Floats]]:
    """The network, and what an identity goes through before it. Adds to `rinses` what torch needs."""
    latent: Callable[[Floats], Floats] = np.copy
    if model.parameters["latent"] == "projected":
        latent = partial(project, projection=find_projection(data))
    if runtime.swapper == "onnx":
        scaling = Scaling(float(model.parameters["mean"]), float(model.parameters["std"]))
        return OnnxSwapNet(net, scaling), latent
    import torch

    from nanoswap.pipelines.shared_net import SharedNet
    from nanoswap.pipelines.swap_net_torch import load_torch_net

    if runtime.threads and runtime.device == "cpu":
        torch.set_num_threads(runtime.threads)
    torch_net = load_torch_net(
        data,
        device=runtime.device,
        dtype=runtime.dtype,
        reference=lambda target, source: net.forward(target, source)[0],
    )
    rinses.append(torch_net.rinse)
    return SharedNet(torch_net, runtime.batching), latent
