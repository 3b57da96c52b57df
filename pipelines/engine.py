"""What every engine can do, whatever it runs on.

An engine is one class behind this protocol: find faces, learn one face, paint it over others. It works on
RGB and in place, and says which rectangles it touched: everything outside is the caller's own pixels, bit
for bit. It paints many faces in one call, of one picture or of several, because a network is fastest so. One
engine serves several threads at once, so it keeps nothing of a picture between calls: what it learned of the
source travels in a `Source`, which the caller wipes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.roi import Roi

Rgb = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, sRGB, upright."""


Pair = tuple[Rgb, Face]
"""A picture, or a part of one, and a face in its pixels."""


@dataclass(frozen=True, slots=True)
class Request:
    """What comes with the pixels of a swap.

    cancel  an engine that works in steps asks it between two of them.
    seed    0 .. 2**32 - 1, for engines that begin with noise: the same seed gives the same picture, up to rounding.
            Others don't look.
    """

    cancel: CancelToken
    seed: int = 0


class Source(Protocol):
    """What an engine learned of the source face. Opaque; one engine's is of no use to another."""

    def wipe(self) -> None:
        """Overwrite everything that was learned. The source is unusable afterwards. Idempotent."""


class Engine(Protocol):
    """Thread safe: any number of threads may be in any of its methods."""

    @property
    def name(self) -> str:
        """Stable name, as in settings: `mesh`."""

    @property
    def batch(self) -> int:
        """How many faces the engine likes to be given in one call of `swap`."""

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        """Every face, the largest first. Does not change `rgb`."""

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        """The same faces with what tells people apart (`Face.embedding`), where the engine has a network for it;
        else the faces as they are. Does not change `rgb`."""

    def prepare(self, rgb: Rgb, face: Face) -> Source:
        """Learn `face` of `rgb`; keeps no reference to `rgb`."""

    def footprint(self, face: Face) -> Roi:
        """The rectangle that `swap` would look at and paint for this face; it may reach beyond the picture."""

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        """Paint `source` over each face, in place; returns the rectangles that were touched (they may be empty).
        Raises `Cancelled` where it works in steps, and then has painted some faces or none.

        Faces of one picture whose footprints meet belong into different calls, the one in front into the later:
        see `rounds`.
        """

    def rinse(self) -> None:
        """Overwrite or hand back the memory that the engine's libraries keep between calls, in which something of
        those who were served may be left. Called when a job is over, whatever its end, also while other jobs go on:
        what these use stays until they are over."""


def rounds(engine: Engine, faces: Sequence[tuple[int, Face]]) -> list[list[int]]:
    """Indices of `faces`, in calls of at most `engine.batch`. Each face comes with a number for its picture; those of
    one picture that meet go into different calls, in their order."""
    left = list(range(len(faces)))
    prints = [engine.footprint(face) for _, face in faces]
    calls: list[list[int]] = []
    while left:
        call: list[int] = []
        later: list[int] = []
        for one in left:
            # Also behind one that has been put off: their order must stay.
            blocked = any(
                faces[one][0] == faces[other][0] and prints[one].meets(prints[other]) for other in (*call, *later)
            )
            (later if blocked or len(call) == engine.batch else call).append(one)
        calls.append(call)
        left = later
    return calls
