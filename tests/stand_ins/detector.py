"""SCRFD's interface around a detector that knows two faces by heart.

The picture is averaged into cells of 8 px and compared with the two portraits' faces at six sizes and three tilts by
normalised cross-correlation; cells of 16 px and the same templates find the faces of twice that size. That is all that
strides 8 and 16 hold; stride 32 is always empty. Around the best template a parabola through its neighbours in place,
size and tilt gives the rest, so that the points of a face that moves slowly move slowly too.
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
#: Pupils' distances that the templates have, in cells; half a step more on each side is found too.
_UNITS: Final = 34 / 8 * 2 ** (np.arange(6) / 5)
_TILTS: Final = np.radians([-8.0, 0.0, 8.0])
_MIDDLE: Final = 0.35  # of the unit: how far below the pupils a template has its middle
_REACH: Final = (1.05, 1.15)  # half width and height of what a template looks at, in units
#: The box that is reported, in units from between the pupils: left, top, right, bottom.
_BOX: Final = (-1.15, -1.2, 1.15, 1.85)
_SURE: Final = 0.62  # correlation at which the score is one half
_STEEP: Final = 40.0
_NOISE: Final = 0.02  # of a picture in -1..1: a flatter ground than this resembles nothing
_STRIDES: Final = (8, 16, 32)


def shape(who: str) -> np.ndarray:
    """float64 (5, 2): the five points of an upright face, in units from between the pupils."""
    actor = Actor(who, still_path(0, 0, 1))
    matrix, pupils = actor.matrix(0), actor.pupils(0)
    assert matrix is not None
    assert pupils is not None
    return np.vstack([pupils, cv2.transform(np.array([_LOWER[who]]), matrix)[0]])


@dataclass(frozen=True)
class _Template:
    person: int
    unit: float
    tilt: float
    size: int

    def mask(self) -> np.ndarray:
        """float64 (size, size): what counts, softly; sums to 1."""
        at = np.arange(self.size) - self.size // 2
        far = np.hypot(at[None] / (_REACH[0] * self.unit), at[:, None] / (_REACH[1] * self.unit))
        soft = np.clip((1 - far) * self.unit + 0.5, 0, 1)
        return soft / soft.sum()

    def face(self) -> np.ndarray:
        """float64 (size, size): brightness, cells of 8 px with this template's own middle in the middle cell."""
        middle, unit = (self.size * 8 - 1) / 2, self.unit * 8
        down = _MIDDLE * unit
        x, y = middle + down * np.sin(self.tilt), middle - down * np.cos(self.tilt)
        matrix = Actor(WHO[self.person], lambda _: (x, y, unit, float(np.degrees(self.tilt)))).matrix(0)
        assert matrix is not None
        blurred = cv2.GaussianBlur(portrait(WHO[self.person]), (0, 0), 0.4 / np.sqrt(np.linalg.det(matrix[:, :2])))
        picture = cv2.warpAffine(blurred, matrix, (self.size * 8, self.size * 8), borderMode=cv2.BORDER_REPLICATE)
        cells = picture.astype(np.float64).reshape(self.size, 8, self.size, 8, 3).mean((1, 3))
        return np.asarray(cells @ _LUMA)


_LUMA: Final = np.array([0.299, 0.587, 0.114])


def detector() -> onnx.ModelProto:
    """`input.1` (1, 3, H, W), RGB as (x - 127.5) / 128, sides multiples of 32, to SCRFD's nine outputs: scores (K, 1),
    boxes (K, 4) and points (K, 10) of strides 8, 16, 32, two anchors per cell of which the first speaks."""
    graph = Graph()
    size = 2 * int(np.ceil(max(_REACH) * _UNITS[-1])) + 1
    templates = [
        _Template(person, float(unit), float(tilt), size)
        for person in range(len(WHO))
        for tilt in _TILTS
        for unit in _UNITS
    ]
    luma = graph("Conv", graph("AveragePool", "input.1", kernel_shape=[8, 8], strides=[8, 8]), _LUMA_KERNEL)
    names = [[f"score_{s}" for s in _STRIDES], [f"bbox_{s}" for s in _STRIDES], [f"kps_{s}" for s in _STRIDES]]
    for at, stride in enumerate(_STRIDES):
        if at:
            luma = graph("AveragePool", luma, kernel_shape=[2, 2], strides=[2, 2])
        if stride == 32:
            found = [graph("Conv", luma, np.zeros((width, 1, 1, 1), np.float32)) for width in (1, 4, 10)]
        else:
            found = _level(graph, luma, templates, (stride - 1) / 2 / stride)
        nothing = graph("Mul", found[0], floats(0))
        pairs = [(found[0], nothing), (found[1], found[1]), (found[2], found[2])]
        for kind, (first, second) in enumerate(pairs):
            both = graph("Transpose", graph("Concat", first, second, axis=1), perm=[0, 2, 3, 1])
            graph("Reshape", both, whole(-1, (1, 4, 10)[kind]), out=names[kind][at])
    outputs = {name: ("?", width) for kind, width in zip(names, (1, 4, 10), strict=True) for name in kind}
    return graph.model("scrfd_like", {"input.1": (1, 3, "?", "?")}, outputs)


_LUMA_KERNEL: Final = _LUMA.astype(np.float32).reshape(1, 3, 1, 1)


def _level(graph: Graph, luma: str, templates: list[_Template], centre: float) -> list[str]:
    """Score (N, 1, h, w), box (N, 4, h, w) and points (N, 10, h, w) of one stride, whose anchors lie `centre` cells
    before the cells' middles."""
    alike = _correlation(graph, luma, templates)
    best = graph("ReduceMax", alike, axes=[1], keepdims=1)
    equal = graph("Cast", graph("GreaterOrEqual", alike, best), to=1)
    winner = graph("Div", equal, graph("ReduceSum", equal, whole(1), keepdims=1))

    def at_winner(values: str) -> str:
        return graph("ReduceSum", graph("Mul", winner, values), whole(1), keepdims=1)

    def of_winner(table: np.ndarray) -> str:
        """1x1 convolution: (T, C) to (N, C, h, w)."""
        return graph("Conv", winner, table.T.astype(np.float32)[..., None, None])

    def step(before: str, after: str) -> str:
        """Where the parabola through three neighbours has its top, at most half a step away."""
        low, high = at_winner(before), at_winner(after)
        bend = graph("Sub", graph("Mul", best, floats(2)), graph("Add", low, high))
        slope = graph("Mul", graph("Sub", high, low), floats(0.5))
        raw = graph("Div", slope, graph("Max", bend, floats(1e-6)))
        return graph("Max", graph("Min", raw, floats(0.5)), floats(-0.5))

    def shifted(x: int, y: int) -> str:
        """The value of the cell that lies x, y further."""
        pads = whole(0, 0, max(-y, 0), max(-x, 0), 0, 0, max(y, 0), max(x, 0))
        cut = [whole(0, 0, max(y, 0), max(x, 0)), whole(*[2**31] * 2, *(-1 if d < 0 else 2**31 for d in (y, x)))]
        return graph("Slice", graph("Pad", alike, pads, mode="edge"), *cut)

    def other(axis: int, by: int) -> str:
        """The value of the template one size or tilt further."""
        order = np.arange(len(templates)).reshape(len(WHO), len(_TILTS), len(_UNITS))
        moved = np.take(order, np.clip(np.arange(order.shape[axis]) + by, 0, order.shape[axis] - 1), axis)
        return graph("Gather", alike, moved.ravel(), axis=1)

    x, y = step(shifted(-1, 0), shifted(1, 0)), step(shifted(0, -1), shifted(0, 1))
    growth = float(np.log(_UNITS[1] / _UNITS[0]))
    known = of_winner(np.array([[np.log(one.unit)] for one in templates]))
    unit = graph("Exp", graph("Add", known, graph("Mul", step(other(2, -1), other(2, 1)), floats(growth))))
    turn = float(_TILTS[1] - _TILTS[0])
    known = of_winner(np.array([[one.tilt] for one in templates]))
    tilt = graph("Add", known, graph("Mul", step(other(1, -1), other(1, 1)), floats(turn)))
    people = of_winner(np.array([[float(one.person == who) for who in range(len(WHO))] for one in templates]))
    ahead = graph("Mul", people, graph("Mul", unit, graph("Cos", tilt)))
    aside = graph("Mul", people, graph("Mul", unit, graph("Sin", tilt)))
    points = graph("Conv", graph("Concat", ahead, aside, x, y, axis=1), *_points_table(centre))
    box = graph("Conv", graph("Concat", unit, x, y, axis=1), *_box_table(centre))
    top = graph("MaxPool", best, kernel_shape=[5, 5], pads=[2, 2, 2, 2])
    peak = graph("Cast", graph("GreaterOrEqual", best, top), to=1)
    sure = graph("Sigmoid", graph("Mul", graph("Sub", best, floats(_SURE)), floats(_STEEP)))
    return [graph("Mul", sure, peak), box, points]


def _correlation(graph: Graph, luma: str, templates: list[_Template]) -> str:
    """(N, T, h, w), -1..1: each template against the picture around each cell, both without mean and of unit norm
    under the template's mask."""
    masks, faces = [one.mask() for one in templates], []
    for one, mask in zip(templates, masks, strict=True):
        face = one.face()
        face = face - (mask * face).sum()
        faces.append(mask * face / np.sqrt((mask * face**2).sum()))
    half = templates[0].size // 2
    sizes = [_mask_kernel(masks[at]) for at in range(len(_UNITS))]  # the same for all people and tilts
    kernel = np.stack([face[None] for face in faces] + sizes).astype(np.float32)
    # Outside the picture is as dark as the rest of insightface's square.
    padded = graph("Pad", luma, whole(0, 0, half, half, 0, 0, half, half), np.array(-127.5 / 128, np.float32))
    both = graph("Conv", padded, kernel)
    product = graph("Slice", both, whole(0), whole(len(templates)), whole(1))
    mean = graph("Slice", both, whole(len(templates)), whole(len(kernel)), whole(1))
    square = graph("Conv", graph("Mul", padded, padded), np.stack(sizes).astype(np.float32))
    spread = graph("Max", graph("Sub", square, graph("Mul", mean, mean)), floats(0))
    deviation = graph("Sqrt", graph("Add", spread, floats(_NOISE**2)))
    repeat = np.tile(np.arange(len(_UNITS)), len(templates) // len(_UNITS))
    return graph("Div", product, graph("Gather", deviation, repeat, axis=1))


def _mask_kernel(mask: np.ndarray) -> np.ndarray:
    return mask[None]


def _points_table(centre: float) -> tuple[np.ndarray, np.ndarray]:
    """From (unit cos per person, unit sin per person, x, y) to the five points, in cells from the anchor: the
    templates' middles are `_MIDDLE` below the pupils, and a turn takes x, y to x cos - y sin, x sin + y cos."""
    count = len(WHO)
    table = np.zeros((10, 2 * count + 2), np.float32)
    for person, who in enumerate(WHO):
        for point, (x, y) in enumerate(shape(who) - (0, _MIDDLE)):
            table[2 * point, [person, count + person]] = x, -y
            table[2 * point + 1, [person, count + person]] = y, x
    table[0::2, -2] = table[1::2, -1] = 1
    return table[..., None, None], np.full(10, centre, np.float32)


def _box_table(centre: float) -> tuple[np.ndarray, np.ndarray]:
    """From (unit, x, y) to how far the sides are from the anchor: left, top, right, bottom."""
    left, top, right, bottom = _BOX
    table = [(-left, -1, 0), (_MIDDLE - top, 0, -1), (right, 1, 0), (bottom - _MIDDLE, 0, 1)]
    return np.array(table, np.float32)[..., None, None], floats(-centre, -centre, centre, centre)
