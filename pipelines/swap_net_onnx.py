"""Swap networks as ONNX Runtime runs them: the inswapper kind (128 px) and the 256 px kind, told apart by their graphs.

What the files differ in is read from them: which input takes the crop and which the identity, the side of the crop, a
second output that is a mask. What a file doesn't say (how pixels are scaled, what an identity must have gone through)
is in the manifest.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from nanoswap.pipelines.blob import Scaling, from_blob, to_blob
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.swap_net import Crops, Latents, Painted

IDENTITY: Final = 512


class OnnxSwapNet:
    """Implements `SwapNet`. Raises `ValueError` for a graph that takes no crop and identity."""

    def __init__(self, net: OnnxNet, scaling: Scaling) -> None:
        self._net, self._scaling = net, scaling
        inputs = net.get_inputs()
        pictures = [port for port in inputs if len(port.shape) == 4]
        identities = [port for port in inputs if len(port.shape) == 2 and port.shape[1] == IDENTITY]
        if len(inputs) != 2 or len(pictures) != 1 or len(identities) != 1:
            raise ValueError("a swap network takes one crop and one identity of 512 numbers")
        side, other = pictures[0].shape[2:]
        if not isinstance(side, int) or side != other or side % 128:
            raise ValueError("a swap network takes square crops of a multiple of 128 px")
        self.size: int = side
        self._target, self._source = pictures[0].name, identities[0].name

    def __call__(self, crops: Crops, latents: Latents) -> Painted:
        if not len(crops):
            return Painted(crops.copy(), None)
        blob = to_blob(crops, self._scaling)
        outputs = self._net.run(None, {self._target: blob, self._source: np.ascontiguousarray(latents, np.float32)})
        try:
            masks = None
            if len(outputs) > 1:
                masks = np.clip(outputs[1][:, 0] * 255 + 0.5, 0, 255).astype(np.uint8)
            return Painted(from_blob(outputs[0], self._scaling), masks)
        finally:
            for value in (blob, *outputs):
                value.fill(0)


def find_projection(data: bytes) -> Floats:
    """The matrix that an identity goes through before the inswapper network, float32 (512, 512).

    It is a stowaway in the file: a constant that no node of the graph uses. insightface takes the last constant of the
    graph, and whatever rewrites the graph may move it; so it is found by its shape, and by being unused where more
    than one has that shape. Raises `ValueError` when that leaves none or several.
    """
    model = onnx.load_model_from_string(data)
    square = [one for one in model.graph.initializer if tuple(one.dims) == (IDENTITY, IDENTITY)]
    if len(square) > 1:
        used = {name for node in model.graph.node for name in node.input}
        square = [one for one in square if one.name not in used]
    if len(square) != 1:
        raise ValueError(f"{len(square)} constants of the graph could be its projection of identities")
    return np.ascontiguousarray(numpy_helper.to_array(square[0]).astype(np.float32))


def project(identity: Floats, projection: Floats) -> Floats:
    """float32 (512,) of unit length through the matrix, and to unit length again."""
    latent = np.asarray(identity @ projection, np.float32)
    latent /= max(float(np.linalg.norm(latent)), 1e-12)
    return latent
