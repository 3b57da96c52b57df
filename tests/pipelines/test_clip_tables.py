"""Tables that a demuxer would believe: each is refused by its claim, at once, and the honest corpus passes."""

import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from nanoswap.pipelines.clip import ClipLimits, probe_clip
from nanoswap.pipelines.clip_container import check_whole
from nanoswap.pipelines.errors import PipelineError, TooLarge, Undecodable, Unsupported
from tests.clips import make
from tests.corpus import CORPUS, box, parts

GOOD = make(replace(CORPUS["constant rate"], frames=6))
STREAMED = make(replace(CORPUS["constant rate"], frames=6, movflags="frag_keyframe+empty_moov"))
WEB = make(replace(CORPUS["vp8, matroska"], frames=6, times=list(range(0, 240, 40))))
TABLE = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]
MILLION = 1_000_000


def changed(data: bytes, path: list[bytes], change: Callable[[bytes], bytes]) -> bytes:
    """The clip with another body of the boxes at `path`."""
    out = []
    for kind, body in parts(data):
        if kind == path[0]:
            body = change(body) if len(path) == 1 else changed(body, path[1:], change)
        out.append(box(kind, body))
    return b"".join(out)


def element(name: str, body: bytes) -> bytes:
    """An EBML element with a size of eight bytes."""
    return bytes.fromhex(name) + (len(body) | 1 << 56).to_bytes(8) + body


def with_first(web: bytes, extra: bytes) -> bytes:
    """The segment begins with `extra`."""
    at = web.index(b"\x18\x53\x80\x67")
    body = web[at + 4 + 9 - int(web[at + 4]).bit_length() :]
    return web[:at] + element("18538067", extra + body)


SAMPLES = changed(GOOD, [*TABLE, b"stsz"], lambda _: struct.pack(">III", 0, 1, 20 * MILLION))
EDITS = struct.pack(">II", 0, MILLION) + struct.pack(">IIHH", 1, 0, 1, 0) * MILLION
KEYS = box(
    b"meta",
    box(b"hdlr", bytes(8) + b"mdta" + bytes(12))
    + box(b"keys", struct.pack(">II", 0, 1000) + b"".join(box(b"mdta", b"k%07d" % one) for one in range(1000))),
)
TAGS = element("1254c367", element("67c8", element("45a3", b"name") + element("4487", b"v")) * 1000)
CHAPTERS = element("1043a770", element("45b9", element("b6", element("73c4", bytes(8)) + element("91", b"\0")) * 1000))
BAD: dict[str, tuple[bytes, type[PipelineError]]] = {
    "20 million samples of a byte": (SAMPLES, TooLarge),
    "the same, called sound": (SAMPLES.replace(b"vide", b"soun"), TooLarge),
    "a million edits": (changed(GOOD, [b"moov", b"trak", b"edts", b"elst"], lambda _: EDITS), Undecodable),
    "a thousand keys": (changed(GOOD, [b"moov"], lambda body: body + KEYS), Undecodable),
    "a thousand keys behind the end": (GOOD + box(b"free", KEYS)[:-1], Undecodable),
    "50 million in a run": (
        STREAMED + box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0, 50 * MILLION)))),
        TooLarge,
    ),
    "many runs": (STREAMED + box(b"moof", box(b"trun", struct.pack(">II", 0, 9_000))) * 50, TooLarge),
    "a compressed header": (box(b"ftyp", b"qt  ") + box(b"moov", box(b"cmov", bytes(99))), Unsupported),
    "a thousand tags": (with_first(WEB, TAGS), Undecodable),
    "a thousand chapters": (with_first(WEB, CHAPTERS), Undecodable),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_table_that_no_honest_clip_has_is_refused(name: str) -> None:
    data, kind = BAD[name]
    with pytest.raises(kind):
        # Before the demuxer: it would refuse some of these too, minutes or gigabytes later.
        check_whole(data, "matroska" if data in (BAD["a thousand tags"][0], BAD["a thousand chapters"][0]) else "mov")


@pytest.mark.parametrize("name", ["constant rate", "edit list", "fragmented", "pcm", "mp3", "vp8, matroska"])
def test_honest_clips_pass(name: str) -> None:
    assert probe_clip(make(CORPUS[name]), ClipLimits()).frames > 20


def test_sound_that_is_read_by_the_chunk_may_have_as_many_samples_as_it_likes() -> None:
    """An hour of PCM has 170 million, and the demuxer makes one entry of a thousand."""
    data = make(replace(CORPUS["pcm"], audio_seconds=12.0, frames=2))
    assert probe_clip(data, ClipLimits()).audio
    check_whole(data, "mov")


def test_names_that_occur_by_chance_are_no_tags() -> None:
    import random

    noise = random.Random(5).randbytes(8 * 2**20)
    check_whole(with_first(WEB, element("ec", noise)), "matroska")


def test_nothing_of_a_clip_is_copied_to_be_searched() -> None:
    large = 4 * 2**20
    for data in (box(b"free", bytes(large)) + GOOD, GOOD + bytes(large)):
        given = bytearray(data)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            check_whole(given, "mov")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < large // 8
