"""The picture that InstantID's IdentityNet looks at: five points of a face, and four lines that join them.

Colours, widths and order are what the network was trained on; they are facts of its published code (InstantID,
`draw_kps` in `pipeline_stable_diffusion_xl_instantid.py`), and in pixels whatever the picture's size.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Floats

_COLOURS: Final = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
_LINES: Final = ((0, 2), (1, 2), (3, 2), (4, 2))  # each to the nose, in the colour of the other end
_HALF_WIDTH: Final = 4
_RADIUS: Final = 10
_DIMMED: Final = 0.6  # the lines, before the points are set on them


def keypoint_picture(points: Floats, size: int) -> Rgb:
    """uint8 (size, size, 3), RGB on black. points: float (5, 2) px: left eye, right eye, nose, mouth corners."""
    picture = np.zeros((size, size, 3), np.uint8)
    for start, end in _LINES:
        (x0, y0), (x1, y1) = points[start].astype(float), points[end].astype(float)
        middle = int((x0 + x1) / 2), int((y0 + y1) / 2)
        half = int(math.hypot(x1 - x0, y1 - y0) / 2)
        turn = int(math.degrees(math.atan2(y0 - y1, x0 - x1)))
        ellipse = np.array(cv2.ellipse2Poly(middle, (half, _HALF_WIDTH), turn, 0, 360, 1), np.int32)
        cv2.fillConvexPoly(picture, ellipse, _COLOURS[start])
    picture = (picture * _DIMMED).astype(np.uint8)
    for (x, y), colour in zip(points, _COLOURS, strict=True):
        cv2.circle(picture, (int(x), int(y)), _RADIUS, colour, -1)
    return picture
