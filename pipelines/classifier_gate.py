"""A safety gate of classifiers: it refuses intimate pictures, and faces that may be a minor's.

It looks at what came in before anything is painted, and at what was painted before it goes out, because neither alone
says what the result shows. A look is a picture as a whole and, for each face of interest, the body that belongs to it:
shrunk to a classifier's few hundred pixels, one person of a large group would be too small to see. Any one classifier
that refuses is enough, and one that fails refuses too.

Who is refused is told that and no more, in one fixed sentence: which classifier it was, and of which picture, would
teach how to get round it. Nothing of a picture is kept or logged; of a classifier that failed the log has the type.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.classifier import Classifier
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.errors import ContentRefused, Reason
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.roi import Roi

log = logging.getLogger(__name__)

# A body, in longer sides of its face's box: a person is some seven and a half heads tall, a box less than a head.
_BODY: Final = 8.0
_BELOW: Final = 2.5  # how far below the face the middle of its body is, in the same
_NEWS: Final = 0.8  # of the picture: a body that is more of it than this was seen with the whole


class ClassifierGate:
    """Implements `Gate`. content: classifiers of whole pictures; ages: of faces. At least one of each. rinse: of their
    networks."""

    def __init__(
        self, content: Sequence[Classifier], ages: Sequence[Classifier], *, rinse: Callable[[], None] = lambda: None
    ) -> None:
        if not content or not ages:
            raise ValueError("a gate has a classifier of content and one of ages")
        self._content, self._ages, self._rinse = tuple(content), tuple(ages), rinse

    def rinse(self) -> None:
        self._rinse()

    def check_content(self, rgb: Rgb, faces: Sequence[Face]) -> None:
        _refuse_unless_sure("content", lambda: any(bool(one(_views(rgb, faces)).any()) for one in self._content))

    def check_ages(self, rgb: Rgb, faces: Sequence[Face]) -> None:
        _refuse_unless_sure("age", lambda: any(_any_minor(one, rgb, faces) for one in self._ages))


def _refuse_unless_sure(reason: Reason, refused: Callable[[], bool]) -> None:
    try:
        hit = refused()
    except Exception as error:
        # Type only: a message may hold a shape or a number of somebody's picture.
        log.error("a classifier of the safety gate failed, so it refused: %s", type(error).__name__)
        hit, reason = True, "unsure"
    # Not inside the block above: the error's frames hold pixels, and must not travel with the refusal.
    if hit:
        raise ContentRefused(reason)


def _any_minor(classifier: Classifier, rgb: Rgb, faces: Sequence[Face]) -> bool:
    crops: list[Rgb] = []
    try:
        for face in faces:
            crops.append(_square(rgb, face, classifier.card.reach, classifier.card.side))
        return bool(classifier(crops).any())
    finally:
        for crop in crops:
            crop.fill(0)


def _views(rgb: Rgb, faces: Sequence[Face]) -> list[Rgb]:
    """The picture, and of each face the body; views, no copies."""
    height, width = rgb.shape[:2]
    views = [rgb]
    for face in faces:
        part = _around(face, _BODY, _BELOW).clip(width, height)
        if not part.empty and part.width * part.height < _NEWS * width * height:
            views.append(rgb[part.slices])
    return views


def _around(face: Face, reach: float, below: float = 0.0) -> Roi:
    """The square of `reach` longer sides of a face's box, its middle `below` of them under the face's; pixels."""
    x0, y0, x1, y1 = (float(value) for value in face.box)
    long = max(x1 - x0, y1 - y0)
    left, top = (x0 + x1 - reach * long) / 2, (y0 + y1 - reach * long) / 2 + below * long
    side = max(1, round(reach * long))
    return Roi(round(left), round(top), round(left) + side, round(top) + side)


def _square(rgb: Rgb, face: Face, reach: float, side: int) -> Rgb:
    """A face's square, uint8 (side, side, 3), a copy; beyond the picture its edge goes on. Raises `ValueError` for a
    face that is not in the picture at all."""
    height, width = rgb.shape[:2]
    square = _around(face, reach)
    seen = square.clip(width, height)
    if seen.empty:
        raise ValueError("a face outside its picture")
    scale = side / square.width
    x0, y0, x1, y1 = (
        min(side, max(0, round((value - start) * scale)))
        for value, start in ((seen.x0, square.x0), (seen.y0, square.y0), (seen.x1, square.x0), (seen.y1, square.y0))
    )
    size = max(1, x1 - x0), max(1, y1 - y0)
    made = cv2.resize(rgb[seen.slices], size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = min(x0, side - size[0]), min(y0, side - size[1])
    try:
        whole = cv2.copyMakeBorder(made, top, side - size[1] - top, left, side - size[0] - left, cv2.BORDER_REPLICATE)
    finally:
        made.fill(0)
    return np.asarray(whole, np.uint8)
