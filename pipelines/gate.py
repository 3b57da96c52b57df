"""The safety gate, as those who swap see it: what may not be swapped, whoever asks.

Where there is none, `None` takes its place: nobody can forget to pass one, since no function has a default for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face


class Gate(Protocol):
    """Thread safe. None of its methods changes `rgb`, uint8 (H, W, 3) RGB, or keeps anything of it."""

    def check_content(self, rgb: Rgb, faces: Sequence[Face]) -> None:
        """Raises `ContentRefused` for an intimate picture. faces: of people who are looked at more closely."""

    def check_ages(self, rgb: Rgb, faces: Sequence[Face]) -> None:
        """Raises `ContentRefused` when any of the faces may be a minor's."""

    def rinse(self) -> None:
        """As `Engine.rinse`, of what looks."""
