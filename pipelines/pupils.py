"""Where the pupils are: the point that the edges around it point away from.

A pupil is dark, round and ringed by edges whose gradients all point outwards from its middle; each dark
pixel is scored by how well the gradients agree with lines drawn from it (the objective of Timm and Barth,
2011), with a preference for rings the size of an iris. Good to a fiftieth of the distance between the eyes
on ordinary portraits.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

_WIDTH = 32  # px; eyes are looked for at one scale


def pupil(window: npt.NDArray[np.uint8]) -> tuple[float, float, float]:
    """x, y (pixel centres, in pixels of `window`, a grey eye region about 0.8 pupil distances wide) and a score."""
    scale = _WIDTH / window.shape[1]
    size = (_WIDTH, max(8, round(window.shape[0] * scale)))
    grey = cv2.GaussianBlur(cv2.resize(window, size, interpolation=cv2.INTER_AREA), (3, 3), 0.7)
    x, y, score = _vote(grey)
    return (x + 0.5) / scale - 0.5, (y + 0.5) / scale - 0.5, score


def _vote(grey: npt.NDArray[Any]) -> tuple[float, float, float]:
    h, w = grey.shape
    gx, gy = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=3)
    strength = np.hypot(gx, gy)
    ys, xs = np.nonzero(strength > strength.mean() + 0.5 * strength.std())
    if len(xs) < 8:
        return w / 2, h / 2, 0.0
    ux, uy = gx[ys, xs] / strength[ys, xs], gy[ys, xs] / strength[ys, xs]

    dark: npt.NDArray[Any] = cv2.GaussianBlur(grey, (5, 5), 1).astype(np.float32)
    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32)
    prior = np.exp(-(((xx - w * 0.5) / (w * 0.34)) ** 2) - ((yy - h * 0.55) / (h * 0.34)) ** 2)
    likely = (dark <= np.percentile(dark[prior > 0.25], 35)) & (prior > 0.15)
    cy, cx = np.nonzero(likely)

    dx, dy = xs[None] - cx[:, None].astype(np.float32), ys[None] - cy[:, None].astype(np.float32)
    far = np.sqrt(dx * dx + dy * dy) + 1e-6
    agree = np.maximum((dx * ux[None] + dy * uy[None]) / far, 0)
    ring = np.exp(-(((far - 0.11 * w) / (0.10 * w)) ** 2))
    votes: npt.NDArray[Any] = np.zeros((h, w), np.float32)
    votes[cy, cx] = (agree * agree * ring).mean(1)
    votes *= ((255 - dark) / 255) ** 1.5 * prior
    votes = cv2.GaussianBlur(votes, (3, 3), 0.8)

    y, x = divmod(int(votes.argmax()), w)
    best = float(votes[y, x])
    if best <= 0:
        return w / 2, h / 2, 0.0
    near = np.s_[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
    weight = votes[near] ** 4
    weight = weight / weight.sum()
    return float((xx[near] * weight).sum()), float((yy[near] * weight).sum()), best
