"""Pictures in and out of memory: every format and quirk, and every hostile file, through the real codecs."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from nanoswap.pipelines.container import survey
from nanoswap.pipelines.errors import PipelineError, TooLarge, Undecodable, Unsupported
from nanoswap.pipelines.image import ImageLimits, decode, encode, probe

LIMITS = ImageLimits()
PHOTO = np.ascontiguousarray(data.astronaut()[:200, 100:400])


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


PICTURE = Image.fromarray(PHOTO)


def close(a: np.ndarray, b: np.ndarray, mean: float) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b).mean()) <= mean


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_formats_come_in_as_upright_rgb(form: str) -> None:
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    encoded = saved(PICTURE, form, quality=95)
    info = probe(encoded, LIMITS)
    assert (info.width, info.height) == (300, 200)
    assert close(decode(bytearray(encoded), LIMITS), PHOTO, 6)


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif"])
def test_formats_go_out_without_metadata(form: str) -> None:
    out = encode(PHOTO, form, 95)  # type: ignore[arg-type]
    assert isinstance(out, bytearray)
    picture = Image.open(BytesIO(bytes(out)))
    assert not picture.getexif()
    assert "icc_profile" not in picture.info
    assert close(np.asarray(picture.convert("RGB")), PHOTO, 6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_in_upright(orientation: int) -> None:
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = PICTURE.transpose(turns[orientation]) if orientation > 1 else PICTURE
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = saved(stored, "JPEG", quality=95, exif=exif)
    assert (probe(encoded, LIMITS).width, probe(encoded, LIMITS).height) == (300, 200)
    assert close(decode(encoded, LIMITS), PHOTO, 6)


def test_alpha_palette_grey_cmyk_and_sixteen_bits() -> None:
    grey = PICTURE.convert("L")
    alpha = PICTURE.copy()
    alpha.putalpha(255)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    grey_rgb = np.asarray(grey.convert("RGB"))
    cases = [
        (saved(alpha, "PNG"), PHOTO, 1),
        (saved(PICTURE.quantize(256), "PNG"), PHOTO, 8),
        (saved(grey, "JPEG", quality=95), grey_rgb, 3),
        (saved(grey.convert("LA"), "PNG"), grey_rgb, 1),
        (saved(PICTURE.convert("CMYK"), "JPEG", quality=95), PHOTO, 8),
        (saved(sixteen, "PNG"), grey_rgb, 1),
    ]
    for number, (encoded, expected, mean) in enumerate(cases):
        assert close(decode(encoded, LIMITS), expected, mean), number


def test_colour_profile_is_converted_to_srgb() -> None:
    # The sRGB profile with its red and blue primaries exchanged: converting must exchange the channels.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    tags = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 136 + 12 * n for n in range(count)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    encoded = saved(PICTURE, "PNG", icc_profile=bytes(profile))
    assert close(decode(encoded, LIMITS), PHOTO[..., ::-1], 3)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises far more than its few bytes hold."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


JPEG = saved(PICTURE, "JPEG", quality=90)
PNG = saved(PICTURE, "PNG")
FRAMES = [PICTURE, PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]

BAD: dict[str, tuple[bytes, tuple[type[PipelineError], ...]]] = {
    "zero bytes": (b"", (Unsupported, Undecodable)),
    "text": (b"hello" * 100, (Unsupported,)),
    "truncated jpeg": (JPEG[: len(JPEG) // 2], (Undecodable,)),
    "truncated png": (PNG[: len(PNG) // 2], (Undecodable,)),
    "header only": (JPEG[:24], (Undecodable, Unsupported)),
    "header bomb": (bomb(30_000, 30_000), (TooLarge,)),
    "long side": (bomb(20_000, 10), (TooLarge,)),
    "lying png": (bomb(500, 500), (Undecodable,)),
    "gif": (saved(PICTURE, "GIF"), (Unsupported,)),
    "bmp": (saved(PICTURE, "BMP"), (Unsupported,)),
    "tiff": (saved(PICTURE, "TIFF"), (Unsupported,)),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", (Unsupported,)),
    "animated webp": (saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), (Undecodable, Unsupported)),
    "animated png": (saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), (Undecodable, Unsupported)),
    "polyglot": (JPEG + b"PK\x03\x04" + b"payload" * 20_000, (Undecodable, Unsupported)),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_files_are_refused_by_type(name: str) -> None:
    encoded, expected = BAD[name]
    with pytest.raises(expected):
        decode(encoded, LIMITS)


def test_caps_hold_before_decoding() -> None:
    with pytest.raises(TooLarge):
        probe(JPEG, ImageLimits(max_bytes=100))
    with pytest.raises(TooLarge):
        probe(JPEG, ImageLimits(max_pixels=300 * 200 - 1))
    with pytest.raises(TooLarge):
        probe(JPEG, ImageLimits(max_side=299))
    assert probe(JPEG, ImageLimits(max_pixels=300 * 200, max_side=300)).format == "jpeg"


def test_one_pixel_is_a_picture() -> None:
    assert decode(saved(Image.new("RGB", (1, 1), (10, 20, 30)), "PNG"), LIMITS).tolist() == [[[10, 20, 30]]]


def test_messages_repeat_nothing_of_the_file() -> None:
    with pytest.raises(PipelineError) as caught:
        decode(b"CANARY" * 50, LIMITS)
    assert "CANARY" not in str(caught.value)


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG of one colour whose last scan comes `count` times."""
    good = saved(Image.new("RGB", (side, side), (120, 90, 60)), "JPEG", progressive=True)
    last, end = good.rindex(b"\xff\xda"), len(good) - 2
    return good[:end] + good[last:end] * count + good[end:]


def test_scans_may_pass_over_so_many_pixels_together() -> None:
    with pytest.raises(TooLarge):
        decode(many_scans(6000, 20), LIMITS)
    assert decode(many_scans(600, 20), LIMITS).shape == (600, 600, 3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "AVIF"])
def test_millions_of_parts_are_refused_before_a_decoder_keeps_records_of_them(form: str) -> None:
    good, count = saved(PICTURE, form), 200_000
    if form == "JPEG":
        bad = good[:2] + b"\xff\xfe\0\2" * count + good[2:]
    elif form == "PNG":
        bad = good[:33] + (bytes(4) + b"quUx" + struct.pack(">I", zlib.crc32(b"quUx"))) * count + good[33:]
    else:
        bad = good + b"\0\0\0\x08mdat" * count
    with pytest.raises(Undecodable):
        survey(bad, form.lower())  # type: ignore[arg-type]
    assert survey(good, form.lower()).tail == 0  # type: ignore[arg-type]
