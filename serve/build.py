"""What this process is made of, as far as it can know without loading any of it.

Versions come from the metadata that the installer wrote. FFmpeg has none of its own: it lies inside PyAV's wheel, whose
file list names its libraries with their versions, and that is what is told. Commit and image digest are the operator's
build's own words. A replica runs in another process: on one machine from the same installation, and on several from
whatever image the operator gave it, which nothing here can see.
"""

import platform
import re
from dataclasses import dataclass
from importlib import metadata

from nanoswap import __version__
from nanoswap.serve.public_settings import PublicSettings

#: Distributions through which pictures, sessions or bodies go, by the name to show.
_DISTRIBUTIONS = {
    "ray": ("ray",),
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "opencv": ("opencv-contrib-python-headless",),
    "pillow": ("pillow",),
    "pyav": ("av",),
    "c2pa": ("c2pa-python",),
    "fastapi": ("fastapi",),
    "uvicorn": ("uvicorn",),
}
_LIBAVCODEC = re.compile(r"libavcodec[^/]*?[.-](\d+\.\d+\.\d+)(?:\.dylib)?$")


@dataclass(frozen=True, slots=True)
class Build:
    """Name -> version, None for what isn't installed; and the operator's words, None where nothing was said."""

    versions: dict[str, str | None]
    commit: str | None
    image_digest: str | None


def build(public: PublicSettings) -> Build:
    """What is installed here, and what the build said."""
    versions: dict[str, str | None] = {"nanoswap": __version__, "python": platform.python_version()}
    for name, distributions in _DISTRIBUTIONS.items():
        versions[name] = next((found for one in distributions if (found := _version(one))), None)
    return Build(versions | {"ffmpeg": _ffmpeg()}, public.build_commit, public.image_digest)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> str | None:
    """``libavcodec X.Y.Z`` of the FFmpeg inside PyAV's wheel; None where PyAV was built against another one."""
    try:
        files = metadata.files("av") or []
    except metadata.PackageNotFoundError:
        return None
    found = next((match for file in files if (match := _LIBAVCODEC.search(file.name))), None)
    return found and f"libavcodec {found[1]}"
