"""Replicas that are to go: how long they get, as old edge processes do, and how they know.

A replica that is to go takes no new connection and ends when its last response has. One that is ended earlier cuts
people off: they get their place in line back, but wait and upload again.
"""

import asyncio

from nanoswap.queue.room import Policy
from nanoswap.queue.ticket import Kind
from nanoswap.serve.settings import Settings

#: Over the sum of what its parts may take.
MARGIN = 30.0
#: Ray tells a replica's application nothing when it begins to drain, but runs this on the application's event loop.
_ENDING = "_perform_graceful_shutdown"


def drain_seconds(settings: Settings, kind: Kind) -> float:
    """Seconds from the first byte of a swap's request to the last of its response, at most."""
    if kind is Kind.VIDEO:
        # Reading the clip counts as work; waiting for the job before it and making it count as delivery.
        return settings.upload_video_seconds + settings.swap_video_seconds + settings.deliver_seconds + MARGIN
    # One picture after those that were let in ahead of it; a result may take as long to leave as its making.
    turns = 1 + Policy().ahead
    return settings.upload_seconds + (turns + 1) * settings.swap_seconds + MARGIN


def longest_drain(settings: Settings) -> float:
    """The longest of all lines that are open."""
    kinds = (Kind.IMAGE, Kind.VIDEO) if settings.video_replicas else (Kind.IMAGE,)
    return max(drain_seconds(settings, kind) for kind in kinds)


def draining() -> bool:
    """Whether Ray has begun to end the replica of the running event loop: it takes no new connection."""
    return any(getattr(task.get_coro(), "__name__", "") == _ENDING for task in asyncio.all_tasks())
