"""What an operator chooses about the looks of a swap by networks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How the networks' answer is put into the picture.

    tiles   most tiles along a crop's side (1, 2 or 4): 256 or 512 px of face out of a 128 px network.
    tone    bring the colours of the painted face to those of the face it covers.
    exact   insightface's own mask, to the pixel, and nothing else: to compare with it.
    """

    tiles: int = 1
    tone: bool = False
    exact: bool = False
