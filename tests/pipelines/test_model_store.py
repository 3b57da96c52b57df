"""The store: what it gives out is what was agreed on, and what goes wrong leaves the folder as it was."""

import hashlib
import io
import json
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from nanoswap.pipelines import model_store
from nanoswap.pipelines.manifest import Licence, Manifest, Model
from nanoswap.pipelines.model_store import (
    LicenceNotAccepted,
    ModelCorrupt,
    ModelMissing,
    ModelStore,
    ModelUnknown,
    ModelUnlocked,
)

DATA = b"weights" * 100
FREE = Licence(name="free", title="Free", source="nobody", commercial=True)
CLOSED = Licence(name="closed", title="Research only", source="nobody", commercial=False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def store(folder: Path, accepted: frozenset[str] = frozenset(), **change: Any) -> ModelStore:
    """A store of one model called ``one``, pinned unless ``change`` says otherwise."""
    of: dict[str, Any] = {
        "role": "detector", "repository": "r", "revision": "1", "url": "https://nowhere.invalid/one", "use": "u",
        "file": "one.onnx", "licence": FREE, "sha256": sha256(DATA), "bytes": len(DATA),
    }  # fmt: skip
    models = {"one": Model(name="one", **(of | change))}
    licences = {licence.name: licence for licence in (FREE, CLOSED)}
    manifest = Manifest(MappingProxyType(models), MappingProxyType({}), MappingProxyType(licences))
    return ModelStore(folder, manifest, accepted)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def archive(*members: tuple[str | zipfile.ZipInfo, bytes], pack: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", pack) as made:
        warnings.simplefilter("ignore")  # of two members with one name, which is what is asked for
        for name, data in members:
            made.writestr(name, data)
    return out.getvalue()


def test_what_was_agreed_on_is_given_out(tmp_path: Path) -> None:
    one = store(tmp_path / "new" / "folder")
    assert one.state("one") == "missing"
    assert not one.has("one")
    one.write("one", [DATA[:300], b"", DATA[300:]])
    assert one.read("one") == DATA
    assert one.state("one") == "ok"
    assert one.has("one")
    assert names(one.folder) == ["one.onnx"]


def test_file_is_as_readable_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        store(tmp_path).write("one", [DATA])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "one.onnx").stat().st_mode) == 0o644


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"W" + DATA[1:]])
def test_other_bytes_are_never_given_out(tmp_path: Path, data: bytes) -> None:
    one = store(tmp_path)
    (tmp_path / "one.onnx").write_bytes(data)
    with pytest.raises(ModelCorrupt, match=sha256(data)[:12]):
        one.read("one")
    assert one.state("one") == "wrong"


@pytest.mark.parametrize("data", [b"", DATA[:-1], b"W" + DATA[1:]])
@pytest.mark.parametrize("before", [None, DATA])
def test_other_bytes_are_never_taken_in(tmp_path: Path, data: bytes, before: bytes | None) -> None:
    if before is not None:
        (tmp_path / "one.onnx").write_bytes(before)
    with pytest.raises(ModelCorrupt, match="what came is not one"):
        store(tmp_path).write("one", [data])
    assert names(tmp_path) == ([] if before is None else ["one.onnx"])
    assert before is None or (tmp_path / "one.onnx").read_bytes() == before


def test_too_much_is_stopped_before_all_of_it_has_come(tmp_path: Path) -> None:
    taken = 0

    def too_many() -> Iterator[bytes]:
        nonlocal taken
        while taken < 100:
            taken += 1
            yield DATA

    with pytest.raises(ModelCorrupt, match=f"larger than {len(DATA)} bytes"):
        store(tmp_path).write("one", too_many())
    assert taken == 2
    assert names(tmp_path) == []


def test_size_alone_is_agreed_on_too(tmp_path: Path) -> None:
    one = store(tmp_path, sha256=None)
    with pytest.raises(ModelCorrupt, match=f"it has {len(DATA) - 1} bytes, not {len(DATA)}"):
        one.write("one", [DATA[:-1]])
    assert names(tmp_path) == []


def test_size_that_nobody_knows_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "MOST", 1000)
    one = store(tmp_path, sha256=None, bytes=None)
    with pytest.raises(ModelCorrupt, match="larger than 1000 bytes"):
        one.write("one", [DATA, DATA])
    assert names(tmp_path) == []


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield DATA[:100]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(tmp_path).write("one", broken())
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["one.onnx", "deep/er/one.onnx", "../one.onnx", "../../one.onnx", "/one.onnx", "/etc/one.onnx"]
)
def test_paths_of_an_archive_are_no_paths(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "b"
    one = store(folder, member="one.onnx")
    one.write("one", [archive((name, DATA), ("other.onnx", b"x"), ("one.onnx.txt", b"y"))])
    assert one.read("one") == DATA
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()] == [Path("a/b/one.onnx")]


def test_link_in_an_archive_makes_no_link(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    folder = tmp_path / "models"
    link = zipfile.ZipInfo("one.onnx")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    packed = archive((link, str(secret).encode()))
    with pytest.raises(ModelCorrupt, match="what came is not one"):
        store(folder, member="one.onnx").write("one", [packed])
    assert names(folder) == []
    unpinned = store(folder, member="one.onnx", sha256=None, bytes=None)
    unpinned.write("one", [packed])
    assert not (folder / "one.onnx").is_symlink()
    assert (folder / "one.onnx").read_bytes() == str(secret).encode()


def directory_only(data: bytes) -> bytes:
    """The archive without the file that its directory speaks of: the local header's signature is gone."""
    return data.replace(b"PK\x03\x04", b"PK\x00\x00", 1)


def spoilt(data: bytes) -> bytes:
    """The archive with its packed bytes overwritten: no stream that could be unpacked."""
    start = 30 + struct.unpack("<H", data[26:28])[0]
    return data[:start] + b"\xff" * 8 + data[start + 8 :]


@pytest.mark.parametrize(
    ("packed", "named"),
    [
        (archive(("a/one.onnx", DATA), ("b/one.onnx", DATA)), "2 files called one.onnx"),
        (archive(("one.onnx", DATA), ("one.onnx", DATA)), "2 files called one.onnx"),
        (archive(("two.onnx", DATA)), "0 files called one.onnx"),
        (archive(("one.onnx/", b"")), "0 files called one.onnx"),
        (archive(("x\\one.onnx", DATA)), "0 files called one.onnx"),
        (archive(("one.onnx", b"W" + DATA[1:])), "what came is not one.onnx"),
        (archive(("one.onnx", DATA[:-1])), "what came is not one.onnx"),
        (archive(("one.onnx", bytes(10_000_000))), f"larger than {len(DATA)} bytes"),
        (archive(("one.onnx", DATA), pack=zipfile.ZIP_LZMA), "packed in a way"),
        (archive(("one.onnx", DATA))[:-10], "can't be read"),
        (archive(("one.onnx", DATA))[40:], "can't be read"),
        (directory_only(archive(("one.onnx", DATA))), "can't be read"),
        (spoilt(archive(("one.onnx", DATA))), "can't be read"),
        (spoilt(archive(("one.onnx", DATA), pack=zipfile.ZIP_STORED)), "can't be read"),
        (b"<html>sign in</html>", "can't be read"),
        (b"", "can't be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_and_broken_archives_leave_nothing(tmp_path: Path, packed: bytes, named: str) -> None:
    with pytest.raises(ModelCorrupt, match=named):
        store(tmp_path, member="one.onnx").write("one", [packed])
    assert names(tmp_path) == []


def test_bomb_in_an_archive_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "MOST", 100_000)
    bomb = archive(("one.onnx", bytes(10_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(ModelCorrupt, match="larger than 100000 bytes"):
        store(tmp_path, member="one.onnx", sha256=None, bytes=None).write("one", [bomb])
    assert names(tmp_path) == []


def test_licence_is_asked_for_before_the_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.onnx").write_bytes(DATA)
    opened: list[Path] = []
    real = Path.read_bytes

    def watched(path: Path) -> bytes:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", watched)
    for accepted in (frozenset[str](), frozenset({"free"}), frozenset({"Closed"})):
        refused = store(tmp_path, accepted, licence=CLOSED)
        for use in (refused.read, refused.lock, refused.check_licence):
            with pytest.raises(LicenceNotAccepted, match=r"Research only.*--accept closed"):
                use("one")
        assert refused.state("one") == "licence"
        assert not refused.has("one")
    assert opened == []
    agreed = store(tmp_path, frozenset({"closed"}), licence=CLOSED)
    assert agreed.read("one") == DATA
    assert opened == [tmp_path / "one.onnx"]


def test_licence_that_allows_commerce_is_not_asked_for(tmp_path: Path) -> None:
    store(tmp_path).check_licence("one")


def test_unlocked_then_locked_then_changed(tmp_path: Path) -> None:
    one = store(tmp_path, sha256=None, bytes=None)
    one.write("one", [DATA])
    with pytest.raises(ModelUnlocked, match="nanoswap models lock one"):
        one.read("one")
    assert one.state("one") == "unlocked"
    assert not one.has("one")
    assert one.lock("one") == sha256(DATA)
    assert one.read("one") == DATA
    assert names(tmp_path) == ["models.lock", "one.onnx"]
    assert json.loads((tmp_path / "models.lock").read_text()) == {
        "one.onnx": {"sha256": sha256(DATA), "bytes": len(DATA)}
    }

    (tmp_path / "one.onnx").write_bytes(b"other")
    assert one.state("one") == "wrong"
    with pytest.raises(ModelCorrupt, match="not what the record says"):
        one.lock("one")
    assert one.state("one") == "wrong"
    assert one.lock("one", again=True) == sha256(b"other")
    assert one.read("one") == b"other"


def test_what_was_recorded_is_what_may_come(tmp_path: Path) -> None:
    one = store(tmp_path, sha256=None, bytes=None)
    one.write("one", [DATA])
    one.lock("one")
    (tmp_path / "one.onnx").unlink()
    with pytest.raises(ModelCorrupt, match="what came is not one"):
        one.write("one", [b"W" + DATA[1:]])
    with pytest.raises(ModelCorrupt, match=f"larger than {len(DATA)} bytes"):
        one.write("one", [DATA, DATA])
    assert names(tmp_path) == ["models.lock"]
    one.write("one", [DATA])
    assert one.read("one") == DATA


@pytest.mark.parametrize("again", [False, True])
def test_published_hash_is_never_overridden(tmp_path: Path, again: bool) -> None:
    one = store(tmp_path)
    (tmp_path / "one.onnx").write_bytes(b"other")
    with pytest.raises(ModelCorrupt, match="not what the manifest says"):
        one.lock("one", again=again)
    assert names(tmp_path) == ["one.onnx"]
    forged = {"one.onnx": {"sha256": sha256(b"other"), "bytes": 5}}
    (tmp_path / "models.lock").write_text(json.dumps(forged))
    assert one.state("one") == "wrong"


def test_locking_what_was_published_records_nothing(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.write("one", [DATA])
    assert one.lock("one") == sha256(DATA)
    assert names(tmp_path) == ["one.onnx"]


def test_records_of_others_stay(tmp_path: Path) -> None:
    other = {"two.onnx": {"sha256": sha256(b"two"), "bytes": 3}}
    (tmp_path / "models.lock").write_text(json.dumps(other))
    one = store(tmp_path, sha256=None, bytes=None)
    one.write("one", [DATA])
    one.lock("one")
    assert json.loads((tmp_path / "models.lock").read_text()) == other | {
        "one.onnx": {"sha256": sha256(DATA), "bytes": len(DATA)}
    }


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "3", '"x"', "\xff", '{"one.onnx": 3}', '{"one.onnx": {}}',
        '{"one.onnx": {"sha256": "ab", "bytes": 1}}',
        f'{{"one.onnx": {{"sha256": "{"a" * 64}", "bytes": "many"}}}}',
        f'{{"one.onnx": {{"sha256": "{"a" * 64}", "bytes": 1, "more": 1}}}}',
        f'{{"two.onnx": {{"sha256": 3, "bytes": 1}}, "one.onnx": {{"sha256": "{"a" * 64}", "bytes": 1}}}}',
    ],
)  # fmt: skip
def test_broken_record_is_no_record_and_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.onnx").write_bytes(DATA)
    (tmp_path / "models.lock").write_text(text, encoding="latin-1")
    one = store(tmp_path, sha256=None, bytes=None)
    assert one.state("one") == "wrong"
    for use in (one.read, one.lock, lambda name: one.lock(name, again=True), lambda name: one.write(name, [DATA])):
        with pytest.raises(ModelCorrupt, match=r"models.lock can't be read"):
            use("one")
    assert names(tmp_path) == ["models.lock", "one.onnx"]
    assert (tmp_path / "models.lock").read_text(encoding="latin-1") == text


def test_missing_and_unknown(tmp_path: Path) -> None:
    one = store(tmp_path)
    with pytest.raises(ModelMissing, match="nanoswap models pull one"):
        one.read("one")
    with pytest.raises(ModelMissing):
        one.lock("one")
    (tmp_path / "one.onnx").mkdir()
    with pytest.raises(ModelMissing, match="can't be read"):
        one.read("one")
    for use in (one.read, one.state, one.has, one.path, one.lock, one.check_licence, one.agreed):
        with pytest.raises(ModelUnknown, match="no model 'two'"):
            use("two")
    with pytest.raises(ModelUnknown):
        one.write("two", [DATA])


def test_folder_in_the_place_of_the_file_is_not_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "one.onnx").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        store(tmp_path).write("one", [DATA])
    assert names(tmp_path) == ["one.onnx"]
