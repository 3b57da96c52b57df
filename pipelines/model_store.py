"""The folder of weights: nothing leaves it that is not, byte for byte, what was agreed on.

A file is read once; the bytes that were hashed are the bytes that are given out, so there is no moment in which a file
could be changed between the two. The hash is the manifest's, or where nobody has published one, that which the operator
recorded after looking at what they had fetched (`models.lock`). A licence that forbids commercial use is asked for
before the file is even opened.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from nanoswap.pipelines.manifest import Manifest, Model

State = Literal["missing", "licence", "unlocked", "wrong", "ok"]

LOCK: Final = "models.lock"
MOST: Final = 16 * 2**30  # bytes of a file whose size nobody has published
_PIECE: Final = 2**20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PACKED: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ModelError(Exception):
    """Weights can't be used. The message is one line and says what to do."""


class ModelUnknown(ModelError):
    """The manifest has no model of this name."""


class ModelMissing(ModelError):
    """The file is not there."""


class ModelCorrupt(ModelError):
    """The file is not the one that was agreed on."""


class ModelUnlocked(ModelError):
    """Nobody has said what the file should be."""


class LicenceNotAccepted(ModelError):
    """The licence forbids commercial use and the operator has not accepted it."""


@dataclass(frozen=True, slots=True)
class Agreed:
    """What a file must be."""

    sha256: str
    bytes: int | None


class ModelStore:
    """accepted: names of licences that the operator has accepted."""

    def __init__(self, folder: Path, manifest: Manifest, accepted: frozenset[str] = frozenset()) -> None:
        self.folder, self.manifest, self.accepted = folder, manifest, accepted

    def model(self, name: str) -> Model:
        """Raises `ModelUnknown`."""
        if name not in self.manifest.models:
            raise ModelUnknown(f"there is no model '{name}' in the manifest")
        return self.manifest.models[name]

    def read(self, name: str) -> bytes:
        """The file, if it is what it should be and may be used. Raises `LicenceNotAccepted`, `ModelMissing`,
        `ModelUnlocked`, `ModelCorrupt`."""
        model = self.model(name)
        self.check_licence(name)
        try:
            data = self.path(name).read_bytes()
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            why = "is not in" if missing else f"can't be read ({error.strerror}) in"
            raise ModelMissing(f"{model.file} {why} {self.folder}: run nanoswap models pull {name}") from None
        agreed = self.agreed(name)
        if agreed is None:
            raise ModelUnlocked(f"nobody has said what {model.file} should be: run nanoswap models lock {name}")
        found = hashlib.sha256(data).hexdigest()
        if found != agreed.sha256:
            raise ModelCorrupt(f"{model.file} is not the agreed file: its SHA-256 begins {found[:12]}")
        return data

    def has(self, name: str) -> bool:
        """Whether `read` could succeed, without reading the file."""
        model = self.model(name)
        return self._allowed(model) and self.path(name).is_file() and self.agreed(name) is not None

    def state(self, name: str) -> State:
        """What `read` would find, hash and all."""
        return self.look(name)[0]

    def look(self, name: str) -> tuple[State, str | None]:
        """The same, and why it is not well."""
        try:
            self.read(name)
        except ModelMissing as error:
            return "missing", str(error)
        except LicenceNotAccepted as error:
            return "licence", str(error)
        except ModelUnlocked as error:
            return "unlocked", str(error)
        except ModelCorrupt as error:
            return "wrong", str(error)
        return "ok", None

    def check_licence(self, name: str) -> None:
        """Raises `LicenceNotAccepted`."""
        licence = self.model(name).licence
        if not self._allowed(self.model(name)):
            raise LicenceNotAccepted(f"{name}: {licence.title}. If that is you, accept it: --accept {licence.name}")

    def path(self, name: str) -> Path:
        return self.folder / self.model(name).file

    def agreed(self, name: str) -> Agreed | None:
        """The manifest's hash, else the recorded one. Raises `ModelCorrupt` when the record can't be read."""
        model = self.model(name)
        if model.sha256 is not None:
            return Agreed(model.sha256, model.bytes)
        record = self._locked().get(model.file)
        return None if record is None else Agreed(str(record["sha256"]), int(record["bytes"]))

    def lock(self, name: str, *, again: bool = False) -> str:
        """Record what lies in the store as what should be there; its SHA-256.

        again: also when something else was recorded before. Raises `LicenceNotAccepted`; `ModelMissing`; `ModelCorrupt`
        when the manifest, or without `again` the record, says otherwise.
        """
        model = self.model(name)
        self.check_licence(name)
        try:
            data = self.path(name).read_bytes()
        except OSError:
            raise ModelMissing(f"{model.file} is not in {self.folder}: run nanoswap models pull {name}") from None
        found = hashlib.sha256(data).hexdigest()
        agreed = self.agreed(name)
        if agreed is not None and agreed.sha256 != found and (model.sha256 is not None or not again):
            where = "manifest" if model.sha256 is not None else "record"
            raise ModelCorrupt(f"{model.file} is not what the {where} says: its SHA-256 begins {found[:12]}")
        if model.sha256 is None:
            records = self._locked() | {model.file: {"sha256": found, "bytes": len(data)}}
            with self._new_file(LOCK) as file:
                file.write(json.dumps(dict(sorted(records.items())), indent=1).encode() + b"\n")
        return found

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Take a file, or the archive that holds it, into the store. Nothing is left behind when that fails.

        Raises `ModelCorrupt` for another file than was agreed on, one that is too large, or a broken archive.
        """
        model, agreed = self.model(name), self.agreed(name)
        size = model.bytes if agreed is None else agreed.bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as whole:
            most = MOST if model.member is not None or size is None else size
            _copy(pieces, whole, most, model.file)
            whole.seek(0)
            with self._new_file(model.file) as file:
                if model.member is None:
                    digest = _copy(_pieces(whole), file, most, model.file)
                else:
                    digest = _extract(whole, model.member, file, size or MOST)
                if agreed is not None and agreed.sha256 != digest:
                    raise ModelCorrupt(f"what came is not {model.file}: its SHA-256 begins {digest[:12]}")
                if size is not None and file.tell() != size:
                    raise ModelCorrupt(f"what came is not {model.file}: it has {file.tell()} bytes, not {size}")

    def _allowed(self, model: Model) -> bool:
        return model.licence.commercial or model.licence.name in self.accepted

    def _locked(self) -> dict[str, dict[str, str | int]]:
        path = self.folder / LOCK
        try:
            found: dict[str, dict[str, str | int]] = json.loads(path.read_text("utf-8"))
            for record in found.values():
                if set(record) != {"sha256", "bytes"} or type(record["bytes"]) is not int:
                    raise ValueError
                if not _SHA256.fullmatch(str(record["sha256"])):
                    raise ValueError
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError):
            raise ModelCorrupt(f"{path} can't be read: mend it or remove it, and lock anew") from None
        return found

    @contextmanager
    def _new_file(self, name: str) -> Iterator[IO[bytes]]:
        """A file that takes its name when the block ends well, and is gone when it doesn't."""
        # Not `mkstemp`: the service may run as somebody else than who pulled, so the umask decides who reads it.
        path = self.folder / f".new-{uuid.uuid4().hex}"
        with path.open("xb") as file:
            try:
                yield file
                file.flush()
                os.replace(path, self.folder / name)
            except BaseException:
                path.unlink()
                raise


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _copy(pieces: Iterable[bytes], file: IO[bytes], most: int, name: str) -> str:
    """Write at most `most` bytes; their SHA-256."""
    digest, count = hashlib.sha256(), 0
    for piece in pieces:
        count += len(piece)
        if count > most:
            raise ModelCorrupt(f"what came for {name} is larger than {most} bytes")
        digest.update(piece)
        file.write(piece)
    return digest.hexdigest()


def _extract(archive: IO[bytes], member: str, file: IO[bytes], most: int) -> str:
    """Write the one file of the archive whose last name is `member`, whatever folder it is in; its SHA-256. The
    archive's own paths are never used as paths."""
    try:
        with zipfile.ZipFile(archive) as opened:
            found = [info for info in opened.infolist() if info.filename.rsplit("/", 1)[-1] == member]
            if len(found) != 1:
                raise ModelCorrupt(f"the archive has {len(found)} files called {member}")
            if found[0].compress_type not in _PACKED:
                raise ModelCorrupt(f"{member} is packed in a way that is not read here")
            with opened.open(found[0]) as packed:
                return _copy(_pieces(packed), file, most, member)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, ValueError) as error:
        raise ModelCorrupt(f"the archive that holds {member} can't be read: {error}") from None
    except OSError as error:
        # A directory that points before the beginning; anything else is this machine's trouble, not the archive's.
        if error.errno != errno.EINVAL:
            raise
        raise ModelCorrupt(f"the archive that holds {member} can't be read: it points outside itself") from None
