"""A face detector that needs no download.

The only trained face detector in any package we use is the LBP cascade in scikit-image's wheel. Its file
has a typo that OpenCV's reader refuses, so it is mended on the way into memory; no copy is written. A
classifier keeps scratch pictures inside, so each serves one look at a time; there are as many as looks at once, and
they are dropped when a job is over: a fresh one is read in half a millisecond.
"""

from __future__ import annotations

from collections import deque
from importlib.resources import files

import cv2
import numpy as np
import numpy.typing as npt

_FILE = "data/lbpcascade_frontalface_opencv.xml"
_SMALLEST = 24  # px, what the cascade was trained on


class Cascade:
    """Upright frontal faces in a grey picture. Thread safe."""

    def __init__(self) -> None:
        text = files("skimage").joinpath(_FILE).read_text()
        self._text = text.replace("featuhreParams", "featureParams")
        self._idle: deque[cv2.CascadeClassifier] = deque()
        self._idle.append(self._read())  # a broken installation is told at start, not by the first request

    def boxes(
        self, grey: npt.NDArray[np.uint8], *, step: float, votes: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Squares float32 (N, 4) x0, y0, x1, y1 in pixels of `grey`, and the votes each one got, float32 (N,).

        step: ratio between neighbouring sizes, above 1; votes: raw hits that make a face.
        """
        try:
            classifier = self._idle.pop()
        except IndexError:
            classifier = self._read()
        try:
            found, counts = classifier.detectMultiScale2(
                grey, scaleFactor=step, minNeighbors=votes, minSize=(_SMALLEST, _SMALLEST)
            )
        finally:
            self._idle.append(classifier)
        if len(found) == 0:
            return np.empty((0, 4), np.float32), np.empty(0, np.float32)
        boxes = np.asarray(found, np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return boxes, np.asarray(counts, np.float32).ravel()

    def rinse(self) -> None:
        """Drop every classifier that nobody looks with, and the pictures inside."""
        self._idle.clear()

    def _read(self) -> cv2.CascadeClassifier:
        storage = cv2.FileStorage(self._text, cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        try:
            classifier = cv2.CascadeClassifier()
            if not classifier.read(storage.getFirstTopLevelNode()):
                raise RuntimeError("scikit-image's face cascade could not be read")
        finally:
            storage.release()
        return classifier
