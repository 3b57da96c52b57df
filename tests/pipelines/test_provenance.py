"""The mark of a result, as the Coalition's own reader sees it: valid, complete, and with nothing of a person in it."""

import io
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from c2pa import C2paError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nanoswap import __version__
from nanoswap.pipelines import mark
from nanoswap.pipelines.binding import Binding, BoxHash
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.errors import NotMarked
from nanoswap.pipelines.image import ImageLimits, OutputFormat, encode
from nanoswap.pipelines.mark import Marks, mark_picture
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.provenance import CredentialError, Signer, source_type
from nanoswap.pipelines.swap import SwapOptions, swap_image
from nanoswap.pipelines.swap_clip import ClipOptions, ClipSwap, open_swap
from nanoswap.serve.development_certificate import DAYS, development_certificate
from tests.clips import Recipe, make, portrait, read
from tests.corpus import CORPUS, SCENE
from tests.marks import ANCHOR, CHAIN, KEY, seen, signer

FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
FREE = b"\0\0\0\x08free"
IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def picture(format: OutputFormat, size: tuple[int, int] = (90, 71)) -> bytearray:
    rgb = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    return encode(rgb, format, 90)


def pixels(data: bytes | bytearray) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).copy()


def top_boxes(data: bytes | bytearray) -> list[tuple[bytes, int, int]]:
    """Type, start and length."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append((bytes(data[at + 4 : at + 8]), at, size))
        at += size
    return found


def state(media_type: str, data: bytes | bytearray) -> str:
    try:
        return seen(media_type, data).state
    except C2paError:
        return "unreadable"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("size", [(90, 71), (64, 64), (301, 200)])
def test_reader_validates_every_format_and_pixels_stay(format: OutputFormat, size: tuple[int, int]) -> None:
    data = picture(format, size)
    plain = bytes(data)
    made = mark_picture(data, format, "inswapper", signer())
    assert not any(data)
    assert len(data) == len(plain)
    there = seen(f"image/{format}", made)
    assert there.state == "Trusted"
    assert "signingCredential.trusted" in there.codes
    assert there.codes & {"assertion.dataHash.match", "assertion.bmffHash.match"}
    assert not [code for code in there.codes if "additionalExclusions" in code or "mismatch" in code]
    assert np.array_equal(pixels(made), pixels(plain))
    if format == "jpeg":  # JFIF asks to be first
        assert made[:20] == plain[:20]
    if format == "avif":  # C2PA asks for it behind ftyp and in front of the rest
        assert [kind for kind, _, _ in top_boxes(made)][:2] == [b"ftyp", b"uuid"]


@pytest.mark.parametrize("engine", ["m", "me"])
def test_manifest_of_odd_length_fits_a_webp(engine: str) -> None:
    made = mark_picture(picture("webp"), "webp", engine, signer())
    assert len(made) % 2 == 0
    assert seen("image/webp", made).state == "Trusted"


def test_without_our_authority_it_is_valid_and_untrusted() -> None:
    there = seen("image/jpeg", mark_picture(picture("jpeg"), "jpeg", "mesh", signer()), trusting=False)
    assert there.state == "Valid"
    assert "signingCredential.untrusted" in there.codes


@pytest.mark.parametrize("format", FORMATS)
def test_changed_bit_is_found(format: OutputFormat) -> None:
    made = mark_picture(picture(format), format, "mesh", signer())
    begin = made.index(b"jumb")
    outside = [60, begin // 2, begin - 60] if format == "webp" else [len(made) // 2, len(made) - 1]
    for at in (*outside, begin + 400, begin + 1200):
        made[at] ^= 1
        assert state(f"image/{format}", made) in ("Invalid", "unreadable"), at
        made[at] ^= 1
    assert state(f"image/{format}", made) == "Trusted"


def test_nothing_but_the_product_and_its_engine_is_in_it() -> None:
    """A stranger's question: with the pixels taken away, is there anything personal in the file?"""
    made = mark_picture(picture("jpeg"), "jpeg", "inswapper", signer())
    there = seen("image/jpeg", made)
    assert set(there.store) == {"active_manifest", "manifests", "validation_results", "validation_state"}
    assert len(there.store["manifests"]) == 1
    manifest = there.manifest
    assert set(manifest) == {"claim", "assertion_store", "signature"}
    assert re.fullmatch(r"urn:c2pa:[0-9a-f-]{36}", there.store["active_manifest"])

    claim = manifest["claim"]
    assert re.fullmatch(r"xmp\.iid:[0-9a-f-]{36}", claim.pop("instanceID"))
    urls = [one["url"].rsplit("/", 1)[1] for one in claim.pop("created_assertions")]
    assert urls == ["c2pa.actions.v2", "c2pa.hash.data"]
    assert claim == {
        "claim_generator_info": {"name": "Nanoswap", "version": __version__, "org.contentauth.c2pa_rs": "0.91.3"},
        "signature": f"self#jumbf=/c2pa/{there.store['active_manifest']}/c2pa.signature",
        "alg": "sha256",
        "claim_version": 2,
    }
    bound = manifest["assertion_store"].pop("c2pa.hash.data")
    assert set(bound) == {"exclusions", "alg", "hash", "name", "pad"}
    assert len(bound["exclusions"]) == 1
    assert manifest["assertion_store"] == {
        "c2pa.actions.v2": {
            "actions": [
                {
                    "action": "c2pa.created",
                    "softwareAgent": {"name": "Nanoswap inswapper", "version": __version__},
                    "digitalSourceType": IPTC + "compositeWithTrainedAlgorithmicMedia",
                    "description": "Faces were replaced with another person's.",
                }
            ]
        }
    }
    # No time among them: the signature has none.
    assert manifest["signature"] == {
        "alg": "es256",
        "issuer": "Nanoswap development, not to be trusted",
        "common_name": "Nanoswap development certificate",
    }


KNOWN = [
    r"urn:c2pa:[0-9a-f-]{36}", r"xmp\.iid:[0-9a-f-]{36}", r"self#jumbf=/?", r"c2pa\.assertions", r"c2pa\.actions\.v2",
    r"c2pa\.hash\.data", r"c2pa\.claim\.v2", r"c2pa\.signature", r"c2pa\.created", r"org\.contentauth\.c2pa_rs",
    re.escape(IPTC + "composite"), r"Faces were replaced with another person's\.", r"Nanoswap mesh", r"Nanoswap",
    r"0\.91\.3", re.escape(__version__), r"softwareAgent", r"digitalSourceType", r"description", r"exclusions",
    r"claim_generator_info", r"created_assertions", r"instanceID", r"signature", r"jumbf manifest", r"actions?",
    r"version", r"length", r"sha256", r"jumdc2(pa|ma|as|cl|cs)", r"jumdcbor", r"dhashX", r"c2pa",
    r"url", r"pad", r"alg", r"name", r"jumb", r"cbor", r"start",
]  # fmt: skip


def readable(manifest: bytes) -> set[bytes]:
    """Runs of readable bytes that are in neither the certificates nor the list."""
    for one in x509.load_pem_x509_certificates(CHAIN):
        der = one.public_bytes(Encoding.DER)
        assert manifest.count(der) == 1
        manifest = manifest.replace(der, b"\0")
    return set(re.findall(rb"[\x20-\x7e]{5,}", re.sub("|".join(KNOWN).encode(), b"\0", manifest)))


def test_every_word_in_the_bytes_is_on_the_list() -> None:
    """What the reader might not show. Salts, hashes and signature are random: what counts is in all four manifests."""
    runs = []
    for _ in range(4):
        made = bytes(mark_picture(picture("png"), "png", "mesh", signer()))
        start = made.index(b"caBX")
        runs.append(readable(made[start : start + 4 + int.from_bytes(made[start - 4 : start], "big")]))
    assert set.intersection(*runs) == set()


def test_manifests_of_two_pictures_say_the_same() -> None:
    one, other = (
        seen("image/webp", mark_picture(picture("webp", size), "webp", "klein", signer())).manifest["assertion_store"]
        for size in ((64, 64), (300, 200))
    )
    assert one.pop("c2pa.hash.data")["hash"] != other.pop("c2pa.hash.data")["hash"]
    assert one == other


def test_engine_without_a_trained_model_is_not_called_one() -> None:
    assert source_type("mesh") == IPTC + "composite"
    for engine in ("inswapper", "instantid", "klein", "not known"):
        assert source_type(engine) == IPTC + "compositeWithTrainedAlgorithmicMedia"


def test_signing_opens_nothing_and_writes_nothing() -> None:
    """In a process that may open no descriptor and write no byte to any file, whatever language asks for it."""
    code = """
import os, resource, sys
import numpy as np
from nanoswap.pipelines.image import encode
from nanoswap.pipelines.mark import ClipSeal, mark_picture
from tests.marks import seen, signer
signer()
data = {format: encode(np.zeros((64, 64, 3), np.uint8), format, 90) for format in ("jpeg", "png", "webp", "avif")}
asked = []
sys.addaudithook(lambda name, args: asked.append(name) if name.split(".")[0] in ("open", "os", "socket") else None)
free = os.dup(0); os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    open("/dev/null")
except OSError:
    asked.clear()
else:
    sys.exit("descriptors can still be opened")
made = {format: mark_picture(one, format, "mesh", signer()) for format, one in data.items()}
seal = ClipSeal("mesh", signer())
seal.update(b"\\0\\0\\0\\x08free")
assert len(seal.box()) > 1000
print(asked, [seen(f"image/{format}", one).state for format, one in made.items()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[] ['Trusted', 'Trusted', 'Trusted', 'Trusted']\n"


def test_threads_share_a_signer() -> None:
    pictures = [picture("jpeg", (64 + one, 64)) for one in range(24)]
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda data: mark_picture(data, "jpeg", "mesh", signer()), pictures))
    assert {seen("image/jpeg", one).state for one in made} == {"Trusted"}


def _chains() -> dict[str, tuple[bytes, bytes, str]]:
    now = datetime.now(UTC)
    leaf = CHAIN.removesuffix(ANCHOR)
    other, other_key = development_certificate(now)
    old, old_key = development_certificate(now - timedelta(days=DAYS + 1))
    new, new_key = development_certificate(now + timedelta(days=1))
    secret = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    return {
        "another's key": (CHAIN, other_key, "own"),
        "ended": (old, old_key, "has ended"),
        "not begun": (new, new_key, "has not begun"),
        "no chain": (leaf, KEY, "chain is missing"),
        "another's authority": (leaf + other[other.index(b"-----BEGIN", 1) :], KEY, "broken"),
        "no certificate": (b"certificate", KEY, "not PEM"),
        "no key": (CHAIN, b"key", "not PEM"),
        "key with a password": (CHAIN, secret, "password"),
    }


@pytest.mark.parametrize("which", _chains())
def test_credentials_that_cannot_sign_are_refused(which: str) -> None:
    chain, key, why = _chains()[which]
    with pytest.raises(CredentialError, match=why) as error:
        Signer(chain, key)
    assert "\n" not in str(error.value)


def ended() -> Signer:
    own = Signer(CHAIN, KEY)
    own.until = datetime.now(UTC) - timedelta(seconds=1)
    return own


def test_certificate_that_ends_while_the_service_runs_stops_it_before_a_swap() -> None:
    asked: list[str] = []

    class Engine(MeshEngine):
        def detect(self, rgb: np.ndarray):  # type: ignore[no-untyped-def]
            asked.append("detect")
            return super().detect(rgb)

    face = bytes(encode(portrait("hopper"), "jpeg", 90))
    with pytest.raises(NotMarked):
        swap_image(
            Engine(), face, face, SwapOptions(), ImageLimits(), cancel=CancelToken(), report=lambda *_: None,
            marks=Marks(signer=ended()), gate=None,
        )  # fmt: skip
    with pytest.raises(NotMarked):
        opened(Marks(signer=ended()), Engine())
    assert asked == []


@pytest.mark.parametrize("format", FORMATS)
def test_picture_that_cannot_be_marked_is_wiped(format: OutputFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[bytearray] = []
    real = mark._room
    monkeypatch.setattr(mark, "_room", lambda *about: rooms.append(real(*about)) or rooms[-1])
    own, left = Signer(CHAIN, KEY), [1]
    sign = own.sign

    def second_fails(*about: object) -> bytes:
        if not left:
            raise NotMarked
        left.clear()
        return sign(*about)  # type: ignore[arg-type]

    monkeypatch.setattr(own, "sign", second_fails)
    data = picture(format)
    with pytest.raises(NotMarked):
        mark_picture(data, format, "mesh", own)
    assert not any(data)
    assert len(rooms) == 1
    assert not any(any(room) for room in rooms)


@pytest.mark.parametrize(
    "at", ["no meta", "no iloc", "unknown iloc", "half an iloc", "iloc without its offsets", "cut"]
)
def test_avif_of_another_build_is_not_marked_and_wiped(at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[tuple[bytearray, int]] = []
    real = mark._room

    def room(*about: object) -> bytearray:
        made = real(*about)  # type: ignore[arg-type]
        rooms.append((made, len(made)))
        return made

    monkeypatch.setattr(mark, "_room", room)
    data = picture("avif")
    iloc = data.index(b"iloc")
    if at.startswith("no "):
        data = data.replace(at[3:].encode(), b"free")
    elif at == "unknown iloc":
        data[iloc + 4] = 3
    else:
        del data[{"half an iloc": iloc + 4, "iloc without its offsets": iloc + 18, "cut": len(data) - 10}[at] :]
    with pytest.raises(NotMarked):
        mark_picture(data, "avif", "mesh", signer())
    assert not any(data)
    ((made, length),) = rooms
    assert not any(made)
    assert len(made) == length, "one that has grown may have left itself behind"


def test_swapped_picture_is_marked() -> None:
    files = [bytes(encode(portrait(name), "jpeg", 90)) for name in ("astronaut", "hopper")]
    made = swap_image(
        MeshEngine(), *files, SwapOptions(), ImageLimits(), cancel=CancelToken(), report=lambda *_: None,
        marks=Marks(signer=signer()), gate=None,
    )  # fmt: skip
    assert seen("image/jpeg", made.data).state == "Trusted"


CLIP = make(Recipe(SCENE, frames=36))


def opened(marks: Marks, engine: MeshEngine | None = None) -> ClipSwap:
    return open_swap(
        engine or MeshEngine(), bytes(encode(portrait("astronaut"), "jpeg", 92)), CLIP, ClipOptions(), ClipLimits(),
        ImageLimits(), Encoder(preset="ultrafast"), cancel=CancelToken(), report=lambda *_: None, marks=marks,
        gate=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """A swapped clip as it would be sent, with a pulse between any two parts."""
    swap, sent = opened(Marks(signer=signer())), bytearray()
    assert swap.seal is not None
    for part in swap:
        for body in (part, FREE):
            swap.seal.update(body)
            sent += body
    sent += swap.seal.box()
    swap.close()
    return bytes(sent)


def test_streamed_clip_is_validated_by_its_last_box(sealed: bytes) -> None:
    boxes = top_boxes(sealed)
    assert boxes[-1][0] == b"uuid"
    assert [kind for kind, _, _ in boxes].count(b"free") >= 3
    there = seen("video/mp4", sealed)
    assert there.state == "Trusted"
    assert "assertion.bmffHash.match" in there.codes
    assert not [code for code in there.codes if "additionalExclusions" in code]
    (action,) = there.manifest["assertion_store"]["c2pa.actions.v2"]["actions"]
    assert action["softwareAgent"] == {"name": "Nanoswap mesh", "version": __version__}


def test_any_change_of_a_clip_is_found(sealed: bytes) -> None:
    boxes = top_boxes(sealed)
    for kind, start, size in boxes[1:]:
        if kind == b"mfra":  # an index of the rest, which C2PA leaves out
            continue
        changed = bytearray(sealed)
        changed[start + size - 1] ^= 1
        assert seen("video/mp4", changed).state == "Invalid", kind
    # A pulse, a half second of video: taken out.
    for wanted in (b"free", b"moof"):
        start, size = next((start, size) for kind, start, size in boxes if kind == wanted)
        assert seen("video/mp4", sealed[:start] + sealed[start + size :]).state == "Invalid", wanted


def test_marked_clip_plays_as_the_unmarked_one(sealed: bytes) -> None:
    plain = opened(Marks())
    assert plain.seal is None
    without = read(b"".join(plain))
    plain.close()
    with_mark = read(sealed)
    assert with_mark.pts == without.pts
    assert with_mark.audio == without.audio
    assert with_mark.audio
    assert len(with_mark.frames) == 36
    assert all(np.array_equal(one, other) for one, other in zip(with_mark.frames, without.frames, strict=True))


BOXES = b"".join(
    (
        b"\0\0\0\x0cftypabcd", b"\0\0\0\x0bmoofxyz", FREE, b"\0\0\0\1mdat" + (16 + 5).to_bytes(8, "big") + b"12345",
        b"\0\0\0\x09mfra!", b"\0\0\0\x09mdat?",
    )
)  # fmt: skip


def bound(*pieces: bytes) -> Binding:
    boxes = BoxHash()
    for piece in pieces:
        boxes.update(piece)
    return boxes.binding()


@given(st.lists(st.integers(0, len(BOXES))))
@settings(max_examples=200, deadline=None)
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BOXES)]
    assert bound(*(BOXES[start:end] for start, end in pairwise(edges))) == bound(BOXES)


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (b"\0\0", "not whole"),
        (b"\0\0\0\x09free", "not whole"),
        (b"\0\0\0\0mdat", "no length"),
        (b"\0\0\0\7free", "no length"),
    ],
)
def test_half_a_box_or_one_of_no_length_is_not_signed(end: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bound(BOXES + end)


def test_corpus_is_signed_whole() -> None:
    """Clips of other kinds: without sound, and of an odd size."""
    for name in ("no audio", "odd"):
        swap = open_swap(
            MeshEngine(), bytes(encode(portrait("astronaut"), "jpeg", 92)), make(CORPUS[name]), ClipOptions(),
            ClipLimits(), ImageLimits(), Encoder(preset="ultrafast"), cancel=CancelToken(), report=lambda *_: None,
            marks=Marks(signer=signer()), gate=None,
        )  # fmt: skip
        assert swap.seal is not None
        sent = b"".join(swap)
        swap.seal.update(sent)
        sent += swap.seal.box()
        swap.close()
        assert seen("video/mp4", sent).state == "Trusted", name
