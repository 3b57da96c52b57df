"""What may be uploaded, as pipelines, gateway and clients are told: one set of numbers, from the settings."""

from dataclasses import asdict

from nanoswap.pipelines.clip import VIDEO_CODECS, ClipLimits
from nanoswap.pipelines.clip_container import CONTAINERS
from nanoswap.pipelines.image import FORMATS, ImageLimits
from nanoswap.queue.ticket import Kind
from nanoswap.serve.problems import Problem
from nanoswap.serve.settings import Settings
from nanoswap.serve.wire import ImageLimitsOut, Limits, TicketRequest, VideoLimitsOut


def open_kinds(settings: Settings) -> tuple[Kind, ...]:
    """The lines that are open."""
    return (Kind.IMAGE, Kind.VIDEO) if settings.video_replicas else (Kind.IMAGE,)


def image_limits(settings: Settings) -> ImageLimits:
    return ImageLimits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_side=settings.max_image_side,
    )


def clip_limits(settings: Settings) -> ClipLimits:
    return ClipLimits(
        max_bytes=settings.max_video_bytes,
        max_pixels=settings.max_video_pixels,
        max_frames=settings.max_video_frames,
        max_seconds=settings.max_video_seconds,
        max_fps=settings.max_video_fps,
    )


def published(settings: Settings) -> Limits:
    """The limits in ``/v1/config`` and ``/v1/queue``."""
    image = ImageLimitsOut(**asdict(image_limits(settings)), formats=list(FORMATS))
    if Kind.VIDEO not in open_kinds(settings):
        return Limits(image=image)
    clip = asdict(clip_limits(settings))
    return Limits(image=image, video=VideoLimitsOut(**clip, codecs=list(VIDEO_CODECS), containers=list(CONTAINERS)))


def check_declared(body: TicketRequest, settings: Settings) -> None:
    """Refuse before waiting what would be refused after it. Raises Problem ``too_large``, ``bad_request``."""
    if body.kind == "video":
        _check_clip(body, settings)
        return
    if body.bytes > 2 * settings.max_image_bytes:
        raise Problem("too_large", f"A picture may have at most {settings.max_image_bytes} bytes.", part="bytes")
    if body.width * body.height > settings.max_image_pixels:
        raise Problem("too_large", f"A picture may have at most {settings.max_image_pixels} pixels.", part="width")
    if max(body.width, body.height) > settings.max_image_side:
        raise Problem("too_large", f"A side may have at most {settings.max_image_side} pixels.", part="width")
    if body.frames != 1:
        raise Problem("bad_request", "A picture has one frame.", part="frames")


def _check_clip(body: TicketRequest, settings: Settings) -> None:
    if body.bytes > settings.max_video_bytes + settings.max_image_bytes:
        raise Problem("too_large", f"A clip may have at most {settings.max_video_bytes} bytes.", part="bytes")
    if body.width * body.height > settings.max_video_pixels:
        most = f"A frame of a clip may have at most {settings.max_video_pixels} pixels."
        raise Problem("too_large", most, part="width")
    if body.frames > settings.max_video_frames:
        raise Problem("too_large", f"A clip may have at most {settings.max_video_frames} frames.", part="frames")
