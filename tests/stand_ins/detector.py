"""A detector of SCRFD's kind (det_10g): nine outputs of two axes, three strides, two anchors.

It correlates a picture, eight times coarser and normalised in each neighbourhood, with the two known faces, and one
between them, at nine sizes. Where the correlation peaks, box and points of the face that fits best are given, moved by
where in its cell the peak lies. Only the first anchor of the finest stride ever says something.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.stand_ins.graph import Graph
from tests.stand_ins.people import people

STRIDES = (8, 16, 32)
_POOL = 8
_SIDE = 33  # cells of a template
_UNITS = 4.2 * 1.15 ** np.arange(9)  # cells between the pupils
_SURE = 0.65  # correlation at which the score is one half
_STEEP = 40.0
_BOX = (-1.05, -0.75, 1.05, 1.73)  # units, from between the pupils


def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels float (N, 33, 33) of mean 0 and length 1, their supports, and float (N, 14): box distances and points,
    in strides, from the anchor."""
    kernels, supports, tables = [], [], []
    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2
    for unit in _UNITS:
        support = ((x / (1.0 * unit)) ** 2 + (y / (1.2 * unit)) ** 2 <= 1).astype(np.float64)
        both = [person.upright(unit * _POOL, _SIDE * _POOL) for person in people()]
        # And a face between the two, for those that a swap has made.
        seen = [*both, (np.mean([picture for picture, _ in both], 0), np.mean([points for _, points in both], 0))]
        for picture, points in seen:
            grey = picture @ np.array([0.299, 0.587, 0.114])
            cells = grey.reshape(_SIDE, _POOL, _SIDE, _POOL).mean((1, 3))
            kernel = (cells - cells[support > 0].mean()) * support
            kernels.append(kernel / np.linalg.norm(kernel))
            supports.append(support)
            # The middle of the middle cell is 3.5 px right of and below its anchor.
            from_anchor = (points - (_SIDE * _POOL - 1) / 2 + (_POOL - 1) / 2) / _POOL
            eyes = from_anchor[:2].mean(0)
            x0, y0, x1, y1 = (eyes[i % 2] + _BOX[i] * unit for i in range(4))
            tables.append([-x0, -y0, x1, y1, *from_anchor.ravel()])
    return np.array(kernels), np.array(supports), np.array(tables)


def detector() -> onnx.ModelProto:
    g = Graph()
    kernels, supports, tables = _templates()
    count = len(kernels)
    pads = [_SIDE // 2] * 4
    grey = g.conv("input.1", np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1))
    cells = g("AveragePool", grey, kernel_shape=[_POOL] * 2, strides=[_POOL] * 2)
    along = g.conv(cells, kernels[:, None], pads=pads)
    sizes = supports.sum((1, 2)).reshape(-1, 1, 1, 1)
    means = g.conv(cells, supports[:, None] / sizes, pads=pads)
    squares = g.conv(g("Mul", cells, cells), supports[:, None] / sizes, pads=pads)
    spread = g("Max", g("Sub", squares, g("Mul", means, means)), g.constant(np.full(1, 1e-3)))
    length = g("Sqrt", g("Mul", spread, g.constant(sizes.reshape(1, count, 1, 1))))
    fits = g("Div", along, length)
    best = g("ReduceMax", fits, axes=[1], keepdims=1)

    # Which template, and where in its cell: both by softmax.
    which = g("Softmax", g("Mul", fits, g.constant(np.full(1, 60.0))), axis=1)
    peak = g("MaxPool", best, kernel_shape=[7, 7], strides=[1, 1], pads=[3] * 4)
    strong = g("Exp", g("Mul", g("Sub", best, peak), g.constant(np.full(1, 60.0))))
    around = [1] * 4
    every = g.conv(strong, np.ones((1, 1, 3, 3)), pads=around)
    step = np.array([-1.0, 0.0, 1.0])
    dx = g("Div", g.conv(strong, np.tile(step, (3, 1)).reshape(1, 1, 3, 3), pads=around), every)
    dy = g("Div", g.conv(strong, np.tile(step[:, None], (1, 3)).reshape(1, 1, 3, 3), pads=around), every)
    shift = g("Concat", dx, dy, axis=1)
    moves = np.zeros((14, 2, 1, 1))
    moves[[0, 1], [0, 1]] = -1  # left and top are distances away from the anchor
    moves[[2, 3], [0, 1]] = 1
    moves[4::2, 0] = moves[5::2, 1] = 1
    where = g("Add", g.conv(which, tables.T.reshape(14, count, 1, 1)), g.conv(shift, moves))

    sure = g("Mul", g("Sub", best, g.constant(np.full(1, _SURE))), g.constant(np.full(1, _STEEP)))
    is_peak = g("Cast", g("Not", g("Greater", peak, best)), to=onnx.TensorProto.FLOAT)
    every_row = np.eye(14).reshape(14, 14, 1, 1)
    found = {8: (g("Mul", g("Sigmoid", sure), is_peak), g.conv(where, every_row[:4]), g.conv(where, every_row[4:]))}
    for stride in STRIDES[1:]:
        pool = [stride // _POOL] * 2
        coarse = g("AveragePool", cells, kernel_shape=pool, strides=pool)
        score, box, points = (g.conv(coarse, np.zeros((n, 1, 1, 1))) for n in (1, 4, 10))
        found[stride] = score, box, points
    names: list[tuple[str, int]] = []
    for index, width in enumerate((1, 4, 10)):
        for stride in STRIDES:
            first = found[stride][index]
            both = g("Concat", first, g("Mul", first, g.constant(np.zeros(1))), axis=1)
            rows = g("Transpose", both, perm=[0, 2, 3, 1])
            name = f"out{width}_{stride}"
            g("Reshape", rows, g.constant(np.array([-1, width], np.int64)), out=name)
            names.append((name, width))
    return g.model(
        {"input.1": [1, 3, "?", "?"]},
        {name: [f"rows{index}", width] for index, (name, width) in enumerate(names)},
    )
