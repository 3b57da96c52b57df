"""SCRFD's interface around a detector that knows two faces by heart.

The picture is averaged into cells of 8 px and compared with the two portraits' faces in a few sizes and tilts by
normalised cross-correlation; cells of 16 px and the same templates find the faces of twice that size. That is all that
strides 8 and 16 hold; stride 32 is always empty. How a face differs from the template that it resembles most (a part
of a cell to the side, a little larger, a little turned) is one step of least squares against the template's own
derivatives: four more filters per template, so that the points of a face that moves slowly move slowly too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import onnx

from tests.clips import Actor, portrait, still_path
from tests.stand_ins import Graph, floats, whole

#: Nose tip and corners of the mouth, pixels of the portraits, measured by hand. The pupils are `tests.clips`'.
_LOWER: Final = {
    "astronaut": ((224.9, 126.5), (204.0, 140.4), (244.0, 141.2)),
    "hopper": ((262.6, 241.4), (226.2, 279.5), (302.7, 278.1)),
}
WHO: Final = tuple(_LOWER)
#: Pupils' distances that the templates have, in cells, and their tilts.
_UNITS: Final = 36 / 8 * 2 ** (np.arange(5) / 4)
_TILTS: Final = np.radians([-4.0, 4.0])
_MIDDLE: Final = 0.35  # of the unit: how far below the pupils a template has its middle
_REACH: Final = (1.0, 1.05)  # half width and height of what a template looks at, in units
#: For the derivatives: cells, cells, share of the size, radians. Also the most that a face is moved from its template.
_STEPS: Final = (0.5, 0.5, 0.1, 0.07)
_MOST: Final = (1.0, 1.0, 0.2, 0.15)
#: The box that is reported, in units from between the pupils: left, top, right, bottom.
_BOX: Final = (-1.15, -1.2, 1.15, 1.85)
_SURE: Final = 0.75  # resemblance at which the score is one half
_STEEP: Final = 40.0
_NOISE: Final = 0.02  # of a picture in -1..1: a flatter ground than this resembles nothing
_STRIDES: Final = (8, 16, 32)
_WIDTHS: Final = (1, 4, 10)  # numbers per anchor: score, box, points
_LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)


def shape(who: str) -> np.ndarray:
    """float64 (5, 2): the five points of an upright face, in units from between the pupils."""
    actor = Actor(who, still_path(0, 0, 1))
    matrix, pupils = actor.matrix(0), actor.pupils(0)
    assert matrix is not None
    assert pupils is not None
    return np.vstack([pupils, cv2.transform(np.array([_LOWER[who]]), matrix)[0]])


@dataclass(frozen=True)
class _Template:
    """A face of `unit` cells between the pupils and `tilt` radians, its middle in the middle of `size` cells a side."""

    who: str
    unit: float
    tilt: float
    size: int

    def mask(self) -> np.ndarray:
        """float64 (size, size): what counts, softly; sums to 1."""
        at = np.arange(self.size) - self.size // 2
        far = np.hypot(at[None] / (_REACH[0] * self.unit), at[:, None] / (_REACH[1] * self.unit))
        soft = np.clip((1 - far) * self.unit + 0.5, 0, 1)
        return np.asarray(soft / soft.sum())

    def face(self, x: float = 0, y: float = 0, growth: float = 0, turn: float = 0) -> np.ndarray:
        """float64 (size, size): brightness in cells of 8 px, without mean and of unit deviation under the mask; the
        face is `x`, `y` cells off the middle, exp(`growth`) times as large, and turned by `turn` more."""
        unit, tilt, side = 8 * self.unit * np.exp(growth), self.tilt + turn, 8 * self.size
        down = _MIDDLE * unit
        left, top = (side - 1) / 2 + 8 * x + down * np.sin(tilt), (side - 1) / 2 + 8 * y - down * np.cos(tilt)
        matrix = Actor(self.who, lambda _: (left, top, unit, float(np.degrees(tilt)))).matrix(0)
        assert matrix is not None
        grey = portrait(self.who).astype(np.float32) @ _LUMA
        grey = cv2.GaussianBlur(grey, (0, 0), 0.4 / float(np.sqrt(np.linalg.det(matrix[:, :2]))))
        picture = cv2.warpAffine(grey, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        cells = picture.astype(np.float64).reshape(self.size, 8, self.size, 8).mean((1, 3))
        mask = self.mask()
        cells -= (mask * cells).sum()
        return np.asarray(cells / np.sqrt((mask * cells**2).sum()))

    def filters(self) -> tuple[np.ndarray, np.ndarray]:
        """What the cells around are to be multiplied with, float64 (5, size, size), and what is to be taken from the
        result, (5,): resemblance -1..1, and where a face is as `face` would have it."""
        mask, same, offs = self.mask(), self.face(), np.diag(_STEPS)
        slopes = [(self.face(*off) - self.face(*-off)) / (2 * off.sum()) for off in offs]
        bent = np.stack(slopes).reshape(4, -1)
        weighed = bent * mask.ravel()
        solved = np.linalg.solve(weighed @ bent.T, weighed).reshape(4, *mask.shape)
        return np.concatenate([(mask * same)[None], solved]), np.array([0, *(solved * same).sum((1, 2))])


def detector() -> onnx.ModelProto:
    """`input.1` (1, 3, H, W), RGB as (x - 127.5) / 128, sides multiples of 32, to SCRFD's nine outputs: scores (K, 1),
    boxes (K, 4) and points (K, 10) of strides 8, 16, 32, two anchors per cell of which the first speaks."""
    graph = Graph()
    size = 2 * int(np.ceil(max(_REACH) * _UNITS[-1])) + 1
    templates = [
        _Template(who, float(unit), float(tilt), size) for who in WHO for tilt in _TILTS for unit in _UNITS
    ]
    names = [[f"{kind}_{stride}" for stride in _STRIDES] for kind in ("score", "bbox", "kps")]
    grey = graph("AveragePool", "input.1", kernel_shape=[8, 8], strides=[8, 8])
    grey = graph("Conv", grey, _LUMA.reshape(1, 3, 1, 1))
    for at, stride in enumerate(_STRIDES):
        if at:
            grey = graph("AveragePool", grey, kernel_shape=[2, 2], strides=[2, 2])
        if stride == 32:
            found = [graph("Conv", grey, np.zeros((width, 1, 1, 1), np.float32)) for width in _WIDTHS]
        else:
            found = _found(graph, grey, templates, (stride - 1) / 2 / stride)
        second = [graph("Mul", found[0], floats(0)), *found[1:]]
        for kind, width in enumerate(_WIDTHS):
            both = graph("Transpose", graph("Concat", found[kind], second[kind], axis=1), perm=[0, 2, 3, 1])
            graph("Reshape", both, whole(-1, width), out=names[kind][at])
    outputs = {name: ("?", width) for kind, width in zip(names, _WIDTHS, strict=True) for name in kind}
    return graph.model("scrfd_like", {"input.1": (1, 3, "?", "?")}, outputs)


def _found(graph: Graph, grey: str, templates: list[_Template], centre: float) -> list[str]:
    """Score (N, 1, h, w), box (N, 4, h, w) and points (N, 10, h, w) of one stride, whose anchors lie `centre` cells
    before the middles of the cells."""
    alike, *offs = _compared(graph, grey, templates)
    best = graph("ReduceMax", alike, axes=[1], keepdims=1)
    equal = graph("Cast", graph("GreaterOrEqual", alike, best), to=onnx.TensorProto.FLOAT)
    winner = graph("Div", equal, _summed(graph, equal))

    def known(*numbers: list[float]) -> str:
        """Of the winner, from a list with one number per template: (N, C, h, w)."""
        return graph("Conv", winner, np.array(numbers, np.float32)[..., None, None])

    x, y, growth, turn = (
        graph("Clip", _summed(graph, graph("Mul", winner, off)), np.float32(-most), np.float32(most))
        for off, most in zip(offs, _MOST, strict=True)
    )
    unit = graph("Exp", graph("Add", known([float(np.log(one.unit)) for one in templates]), growth))
    tilt = graph("Add", known([one.tilt for one in templates]), turn)
    people = graph("Mul", known(*([float(one.who == who) for one in templates] for who in WHO)), unit)
    ahead, aside = graph("Mul", people, graph("Cos", tilt)), graph("Mul", people, graph("Sin", tilt))
    points = graph("Conv", graph("Concat", ahead, aside, x, y, axis=1), *_points_table(centre))
    box = graph("Conv", graph("Concat", unit, x, y, axis=1), *_box_table(centre))
    top = graph("MaxPool", best, kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    peak = graph("Cast", graph("GreaterOrEqual", best, top), to=onnx.TensorProto.FLOAT)
    sure = graph("Sigmoid", graph("Mul", graph("Sub", best, floats(_SURE)), floats(_STEEP)))
    return [graph("Mul", sure, peak), box, points]


def _compared(graph: Graph, grey: str, templates: list[_Template]) -> list[str]:
    """Per template (N, T, h, w) its five `filters` on what lies around each cell, which is brought to no mean and unit
    deviation under the template's own mask."""
    count, half = len(templates), templates[0].size // 2
    masks = np.stack([one.mask() for one in templates[: len(_UNITS)]])  # the same for all people and tilts
    kernels, biases = zip(*(one.filters() for one in templates), strict=True)
    every = np.concatenate([np.stack(kernels, 1).reshape(5 * count, *masks[0].shape), masks]).astype(np.float32)
    # Outside the picture it is as dark as in the rest of insightface's square.
    padded = graph("Pad", grey, whole(0, 0, half, half, 0, 0, half, half), np.float32(-127.5 / 128))
    both = graph("Conv", padded, every[:, None])
    mean = graph("Slice", both, whole(5 * count), whole(len(every)), whole(1))
    square = graph("Conv", graph("Mul", padded, padded), every[5 * count :, None])
    spread = graph("Max", graph("Sub", square, graph("Mul", mean, mean)), floats(0))
    deviation = graph("Sqrt", graph("Add", spread, floats(_NOISE**2)))
    each = graph("Gather", deviation, np.tile(np.arange(len(_UNITS)), count // len(_UNITS)), axis=1)
    results = []
    for kind, bias in enumerate(np.stack(biases, 1).astype(np.float32)):
        raw = graph("Slice", both, whole(kind * count), whole((kind + 1) * count), whole(1))
        results.append(graph("Sub", graph("Div", raw, each), bias[:, None, None]))
    return results


def _summed(graph: Graph, values: str) -> str:
    return graph("ReduceSum", values, whole(1), keepdims=1)


def _points_table(centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias from (unit cos of each person, unit sin of each, x, y) to the five points in cells from the
    anchor. A turn takes x, y to x cos - y sin, x sin + y cos."""
    count = len(WHO)
    table = np.zeros((10, 2 * count + 2), np.float32)
    for person, who in enumerate(WHO):
        for point, (x, y) in enumerate(shape(who) - (0, _MIDDLE)):
            table[2 * point, [person, count + person]] = x, -y
            table[2 * point + 1, [person, count + person]] = y, x
    table[0::2, -2] = table[1::2, -1] = 1
    return table[..., None, None], np.full(10, centre, np.float32)


def _box_table(centre: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias from (unit, x, y) to the distances of the sides from the anchor: left, top, right, bottom."""
    left, top, right, bottom = _BOX
    table = [(-left, -1, 0), (_MIDDLE - top, 0, -1), (right, 1, 0), (bottom - _MIDDLE, 0, 1)]
    return np.array(table, np.float32)[..., None, None], floats(-centre, -centre, centre, centre)
