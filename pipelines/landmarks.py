"""From a detector's square to a measured shape.

Two looks: one at the detector's square, which gives the pupils roughly; one in the frame of those pupils,
upright and at one scale, which gives them well, and the mouth and nose with them. `trust` says how much
like a face all this is: it is what tells a face from a patch of gravel that the cascade liked.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines import lips
from nanoswap.pipelines.align import place
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.lips import K, Mouth, read_mouth
from nanoswap.pipelines.pupils import pupil
from nanoswap.pipelines.shape import AVERAGE, Shape, frame_of

_BOX: Final = 84  # px, the detector's square in the first look
_SEARCH: Final = ((0.10, 0.48), (0.52, 0.90))  # left and right eye, fractions of the square
_ROWS: Final = (0.20, 0.52)


def measure(rgb: Rgb, box: Floats, roll: float = 0.0) -> Shape:
    """The shape of the face in `box` (float32 (4,), a square, pixels), tilted by `roll` degrees, clockwise positive
    as seen in the picture. Always answers; look at `trust`."""
    frame, first = _first_look(rgb, box, roll)
    frame, second = _second_look(rgb, frame)
    crop = crop_of(rgb, frame)
    mouth = read_mouth(crop)
    return Shape(frame, _anchors(mouth), min(first, second) * _skin(crop))


def crop_of(rgb: Rgb, frame: npt.NDArray[np.float64]) -> Rgb:
    """The face upright, K px between the pupils, as `lips` wants it."""
    x, y = lips.ORIGIN
    matrix = frame @ np.array([[1 / K, 0, -x / K], [0, 1 / K, -y / K], [0, 0, 1]])
    return _sample(rgb, matrix, lips.SIZE)


def _sample(rgb: Rgb, matrix: npt.NDArray[np.float64], size: tuple[int, int]) -> Rgb:
    """`size` pixels, each looked up through `matrix`. Averaged when the picture is much finer than the crop: taking
    every tenth pixel would make noise of skin."""
    fine = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    times = max(1, min(8, int(fine)))
    if times > 1:
        matrix = matrix @ np.array(
            [[1 / times, 0, (1 - times) / (2 * times)], [0, 1 / times, (1 - times) / (2 * times)], [0, 0, 1]]
        )
    big = cv2.warpAffine(
        rgb, matrix, (size[0] * times, size[1] * times),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    result = cv2.resize(big, size, interpolation=cv2.INTER_AREA) if times > 1 else big
    return np.asarray(result, np.uint8)


def _first_look(rgb: Rgb, box: Floats, roll: float) -> tuple[npt.NDArray[np.float64], float]:
    side, middle = (
        float(box[2] - box[0]),
        np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], np.float64),
    )
    c, s = np.cos(np.radians(roll)) * side / _BOX, np.sin(np.radians(roll)) * side / _BOX
    turn = np.array([[c, -s], [s, c]])
    matrix = np.c_[turn, middle - turn @ np.full(2, _BOX / 2)]
    grey = cv2.cvtColor(_sample(rgb, matrix, (_BOX, _BOX)), cv2.COLOR_RGB2GRAY)
    y0, y1 = (int(part * _BOX) for part in _ROWS)
    eyes, scores = [], []
    for left, right in _SEARCH:
        x0, x1 = int(left * _BOX), int(right * _BOX)
        x, y, score = pupil(np.asarray(grey[y0:y1, x0:x1], np.uint8))
        eyes.append(turn @ (x0 + x, y0 + y) + matrix[:, 2])
        scores.append(score)
    apart = (eyes[1] - eyes[0]) @ np.linalg.inv(turn).T / _BOX
    sane = 0.30 < apart[0] < 0.60 and abs(apart[1]) < 0.4 * apart[0]
    if not sane:
        eyes = [turn @ (part * _BOX, 0.38 * _BOX) + matrix[:, 2] for part in (0.30, 0.70)]
    trust = float(np.clip(min(scores) / 0.06, 0, 1)) * (1.0 if sane else 0.3)
    return frame_of(*np.array(eyes, np.float32)), trust


def _second_look(rgb: Rgb, frame: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """The same vote in the frame of the first: upright, centred, at one scale."""
    grey = cv2.cvtColor(crop_of(rgb, frame), cv2.COLOR_RGB2GRAY)
    x, y = lips.ORIGIN
    eyes, scores = [], []
    for middle in (-0.5, 0.5):
        x0, y0 = int(x + (middle - 0.40) * K), int(y - 0.33 * K)
        px, py, score = pupil(np.asarray(grey[y0 : y0 + int(0.60 * K), x0 : x0 + int(0.80 * K)], np.uint8))
        eyes.append(((x0 + px - x) / K, (y0 + py - y) / K))
        scores.append(score)
    moved = np.abs(np.array(eyes) - [(-0.5, 0), (0.5, 0)]).max()
    if moved > 0.22:
        return frame, 0.5
    return frame_of(*place(frame, np.array(eyes))), float(np.clip(min(scores) / 0.06, 0, 1))


def _anchors(mouth: Mouth) -> Floats:
    tall = mouth.y / 1.08
    measured = AVERAGE.copy()
    measured[2:7] = [
        (mouth.x - mouth.half, mouth.y), (mouth.x + mouth.half, mouth.y), (mouth.x, mouth.y),
        (mouth.nose_x * 0.7, mouth.nose_y + 0.02), (mouth.x * 1.2, 1.73 * tall),
    ]  # fmt: skip
    measured[9:11] = (-0.74 + mouth.x * 0.6, 1.28 * tall), (0.74 + mouth.x * 0.6, 1.28 * tall)
    measured[12:14] = (mouth.x, mouth.top), (mouth.x, mouth.bottom)
    return measured


def _skin(crop: Rgb) -> float:
    """1 where the cheeks have the chroma of any human skin, or the picture no colour at all; less otherwise."""
    ox, oy = lips.ORIGIN
    cheeks = crop[int(oy + 0.3 * K) : int(oy + 0.8 * K), int(ox - 0.65 * K) : int(ox + 0.65 * K)]
    _, cr, cb = cv2.split(cv2.cvtColor(cheeks, cv2.COLOR_RGB2YCrCb))
    red, blue = float(np.median(cr)), float(np.median(cb))
    grey = abs(red - 128) < 3 and abs(blue - 128) < 3
    return 1.0 if grey or (131 <= red <= 182 and 70 <= blue <= 130) else 0.3
