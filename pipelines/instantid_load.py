"""From files of weights to the flagship, warm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
from nanoswap.pipelines.denoiser import Denoiser
from nanoswap.pipelines.gpu_memory import gpu_memory
from nanoswap.pipelines.identity import Identity
from nanoswap.pipelines.instantid import InstantIdEngine, Networks
from nanoswap.pipelines.instantid_parts import load_parts
from nanoswap.pipelines.latents import Autoencoder
from nanoswap.pipelines.masks import Occluder
from nanoswap.pipelines.onnx_arena import shared_arena
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.parser import Parser
from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.roles import Role
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.style import Style


def load_instantid(
    name: str, files: Mapping[Role, bytes], recipe: Recipe, runtime: Runtime, style: Style
) -> InstantIdEngine:
    """files: of the manifest's roles, those that an engine of this kind needs and others that it uses. Raises whatever
    the libraries raise for files that are something else."""
    if runtime.threads and runtime.device == "cpu":
        torch.set_num_threads(runtime.threads)
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    loaded = load_parts(files, recipe, device=runtime.device, dtype=dtype)

    rinses: list[Callable[[], None]] = [shared_arena().rinse]

    def net(role: Role) -> OnnxNet:
        made = OnnxNet.of(files[role], runtime)
        rinses.append(made.rinse)
        return made

    networks = Networks(
        detector=Detector(net("detector")),
        encoder=Encoder(net("encoder"), files["encoder"]),
        identity=Identity(
            loaded.resampler,
            guided=recipe.guided,
            pulid=loaded.pulid,
            parser=None if loaded.pulid is None else Parser(net("parser")),
        ),
        autoencoder=Autoencoder(loaded.vae),
        denoiser=Denoiser(
            loaded.parts,
            recipe,
            device=runtime.device,
            dtype=dtype,
            compiler="inductor" if runtime.compile else None,
        ),
        reference=loaded.reference,
        landmarks=Landmarks(net("landmarks"), files["landmarks"]) if "landmarks" in files else None,
        occluder=Occluder(net("occluder")) if "occluder" in files else None,
    )
    memory = gpu_memory(runtime.device) if runtime.device == "cuda" else None

    def rinse() -> None:
        for each in rinses:
            each()
        if memory is not None:
            memory.rinse()

    def enter() -> None:
        if memory is not None:
            memory.enter()

    engine = InstantIdEngine(
        name,
        networks,
        style,
        step_batch=runtime.step_batch,
        admitted=runtime.admitted,
        rinse=rinse,
        enter=enter,
        told=partial(runtime.batching.told, "step"),
    )
    engine.warm()
    return engine
