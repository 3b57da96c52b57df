"""Everything that can go wrong between the pixels that came in and the pixels that go out.

One tree, so that a caller can map a failure to an answer by its `code` alone. A message is the docstring of
its class and never holds a byte, a name or a number taken from somebody's picture: it may be logged and
shown.

    PipelineError
    ├── Unsupported    unsupported    not a format on the list, or not what it claims to be
    ├── Undecodable    undecodable    damaged, cut short, animated, or with something behind the picture
    ├── TooLarge       too_large      more bytes, pixels or side than the limits allow
    ├── NoFace         no_face        nothing to swap, in the source or in the target
    ├── ManyFaces      many_faces     the source shows several people and nobody said which one
    ├── UnknownFace    unknown_face   a face was asked for that is not in the picture
    ├── ContentRefused content_refused  the safety gate refused, or could not be sure
    ├── NotMarked      not_marked     the result can't be signed, so it may not leave
    ├── TimedOut       timed_out      the work took longer than one turn may
    └── Cancelled      canceled       the person left, or the replica must stop
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal, get_args

Where = Literal["source", "target"]
#: Why the safety gate refused. Never told to who asked: which of the two it was would teach how to get past it.
Reason = Literal["content", "age", "unsure"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class PipelineError(Exception):
    """The picture could not be processed."""

    code: ClassVar[str] = "pipeline"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class Unsupported(PipelineError):
    """This is not an image of a supported format."""

    code = "unsupported"


class Undecodable(PipelineError):
    """The image is damaged or holds more than one still picture."""

    code = "undecodable"


class TooLarge(PipelineError):
    """The image has more bytes or pixels than allowed."""

    code = "too_large"


class NoFace(PipelineError):
    """No face was found."""

    code = "no_face"

    def __init__(self, where: Where) -> None:
        super().__init__(f"No face was found in the {where} image.")
        self.where: Where = where


class ManyFaces(PipelineError):
    """The source image shows several faces: say which one to use."""

    code = "many_faces"


class UnknownFace(PipelineError):
    """A face was asked for that is not in the image."""

    code = "unknown_face"


class ContentRefused(PipelineError):
    """The safety gate didn't let this swap through. It says no more, and errs towards refusing."""

    code = "content_refused"

    def __init__(self, reason: Reason = "unsure") -> None:
        super().__init__()
        self.reason: Reason = reason


class NotMarked(PipelineError):
    """The result can't be marked as what it is, and does not leave without."""

    code = "not_marked"


class TimedOut(PipelineError):
    """The file takes too long to work on."""

    code = "timed_out"


class Cancelled(PipelineError):
    """The swap was cancelled."""

    code = "canceled"
