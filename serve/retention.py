"""What is kept where and for how long: the table of ``/privacy``, made of the very constants that the code obeys.

A privacy page that is written by hand is right on the day on which it is written. Here a row names its number by where
it is used, so that whoever changes the number changes the page; and a row about the waiting room names the keys of
``queue/room.lua`` that it speaks for, so that a test can compare it with what a real store does.
"""

import math
from dataclasses import dataclass

from nanoswap.queue.rate import KEY_SECONDS
from nanoswap.queue.room import Policy
from nanoswap.queue.session import CONFIRM_SECONDS
from nanoswap.queue.ticket import Kind
from nanoswap.serve.estimate import estimate_seconds
from nanoswap.serve.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One row. ``seconds``: the longest that it can be kept after its last use, None where that is not a time of ours;
    ``keys``: the letters after the prefix of the store's keys that it speaks for."""

    what: str
    where: str
    until: str
    seconds: float | None = None
    keys: tuple[str, ...] = ()


def retention(settings: Settings, policy: Policy) -> list[Kept]:
    """Every row. ``policy``: the rules of the room in force."""
    owed = policy.horizon + _dearest(settings) / policy.phi
    replica, store, gateway = "memory of the process that swaps", "Redis, in memory", "memory of the gateway"
    return [
        Kept(
            what="Pictures and clips that you upload, faces found in them, the result",
            where=replica,
            until=f"the response ends: then our buffers are overwritten. A picture must have arrived within "
            f"{duration(settings.upload_seconds)}, a clip within {duration(settings.upload_video_seconds)}, and the "
            f"result of a clip been taken within {duration(settings.deliver_seconds)}",
        ),
        Kept(
            what="Your place in line: numbers that you declared (bytes, pixels, frames), times, the id of the consent "
            "statement, a pseudonym of your account (keyed hash); after a swap its result's length and SHA-256",
            where=store,
            until=f"it ends, and {duration(policy.tombstone)} more, so that it can't be used again. It ends by itself "
            f"when you haven't been heard of for {duration(policy.presence + policy.parked)}",
            seconds=policy.tombstone,
            keys=("t", "a", "q", "e", "hb", "p", "g", "r"),
        ),
        Kept(
            what="What your account owes the line (one time)",
            where=store,
            until=f"it is worked off, at most {duration(60 * math.ceil(owed / 60))}",
            seconds=owed,
            keys=("tat",),
        ),
        Kept(
            what="Hash of an Idempotency-Key, and the list of the keys that name your account's pseudonym",
            where=store,
            until=f"{duration(policy.idempotency)} after the last place that you took",
            seconds=policy.idempotency,
            keys=("i", "k"),
        ),
        Kept(
            what="That your account was erased (pseudonym and time, nothing else)",
            where=store,
            until=f"{duration(policy.denial)}: as long as an access token from before could be valid",
            seconds=max(policy.denial, policy.life),
            keys=("x", "d"),
        ),
        Kept(
            what="How much you asked for lately, under names made of your account and your network address by a keyed "
            "hash whose key is thrown away",
            where=store,
            until=f"it is made up for, at most {duration(KEY_SECONDS)}",
            seconds=KEY_SECONDS,
            keys=("rate", "ratekey"),
        ),
        Kept(
            what="Waiting and working times of the last swaps, without any account",
            where=store,
            until="newer ones take their place",
            keys=("sw", "said", "took"),
        ),
        Kept(
            what="Sums of everybody's: places taken, turns, waits, seconds of work, requests by kind of answer",
            where=store,
            until="the store is emptied",
            keys=("c", "m", "mp", "mh", "mk"),
        ),
        Kept(
            what="Your access token, verified",
            where=f"{gateway} and {replica}",
            until="the request ends",
        ),
        Kept(
            what="That your session still stands (its id and a time)",
            where=gateway,
            until=f"{duration(CONFIRM_SECONDS)}, then it is not believed any more and removed with the next such check",
            seconds=CONFIRM_SECONDS,
        ),
        Kept(
            what="Log lines: kinds of errors, places in the code and, if the operator wants it, how a swap ended and "
            "how long its steps took; no picture, token, name or address of yours",
            where="where the operator keeps logs",
            until="the operator says",
        ),
        Kept(
            what="Your session: tokens and account as the sign-in service gave them (nanoswap-session)",
            where="your browser, localStorage",
            until="you sign out or delete your data here",
        ),
        Kept(
            what="What you chose, and your place in line with its sealed copy (nanoswap)",
            where="your browser, IndexedDB",
            until="the swap ends, fails or is cancelled, or, if you close the page before, you open it again and it "
            f"ends then. The sealed copy is worth nothing after {duration(policy.life)}",
        ),
    ]


def duration(seconds: float) -> str:
    """Whole seconds as people say them; nothing is rounded."""
    whole = math.ceil(seconds)
    parts = []
    for name, size in (("hour", 3600), ("minute", 60), ("second", 1)):
        # Up to two minutes people count in seconds.
        if size > 1 and seconds < 120:
            continue
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return " and ".join(parts) or "0 seconds"


def _dearest(settings: Settings) -> float:
    """GPU seconds of the largest swap that is let in."""
    image = estimate_seconds(Kind.IMAGE, settings.max_image_pixels, 1, 1)
    return max(image, estimate_seconds(Kind.VIDEO, settings.max_video_pixels, 1, settings.max_video_frames))
