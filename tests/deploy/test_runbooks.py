"""Runbooks name commands and files that exist."""

import argparse
import re
from pathlib import Path

import pytest

from nanoswap.serve import cli
from nanoswap.serve.problems import CODES
from tests.deploy.files import DEPLOY, ROOT

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
WANTED = {
    "peak-preparation", "queue-too-long", "no-warm-gpu", "redis-down", "supabase-down", "key-rotation", "model-update",
    "rollback", "abuse-report", "data-subject-request",
}  # fmt: skip
_BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"`((?:serve|queue|pipelines|deploy|docs|tests)/[\w./-]*\w)`")
_LINK = re.compile(r"\]\(([^)#:]+?)(?:#[^)]*)?\)")


def commands() -> dict[str, set[str]]:
    """Of `nanoswap`: command -> its options."""
    (choices,) = [act.choices for act in cli._parser()._actions if isinstance(act, argparse._SubParsersAction)]
    return {
        name: {option for act in parser._actions for option in act.option_strings} for name, parser in choices.items()
    }


def lines(path: Path) -> list[str]:
    """Every command of a page, with continued lines joined and comments cut."""
    blocks = "".join(_BLOCK.findall(path.read_text())).replace("\\\n", " ")
    return [line for line in (raw.partition(" #")[0].strip() for raw in blocks.splitlines()) if line]


def test_every_page_is_there() -> None:
    assert {path.stem for path in PAGES} == WANTED


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_exist(path: Path) -> None:
    assert lines(path)
    developer = set(re.findall(r"^([a-z]+)\)$", (ROOT / "dev").read_text(), re.MULTILINE))
    for line in lines(path):
        for found in re.finditer(r"(?:^|[\s/(])nanoswap ([a-z]+)\b([^|;)#]*)", line):
            name, rest = found.groups()
            # Of `docker compose` and `kubectl` it is the name of a service.
            if line.startswith(("docker ", "kubectl ")):
                continue
            assert name in commands(), line
            options = {word.partition("=")[0] for word in rest.split() if word.startswith("--")}
            # `nanoswap models pull` and `nanoswap eval …` have words of their own.
            assert name in ("models", "eval") or options <= commands()[name], line
        for word in re.findall(r"^\./dev ([a-z]+)", line):
            assert word in developer, line


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_codes_are_ones_that_are_answered(path: Path) -> None:
    for code, status in re.findall(r"`([a-z_]+)` \((\d{3})\)", path.read_text()):
        assert code in CODES, code
        assert CODES[code][0] == int(status)


@pytest.mark.parametrize("path", [*PAGES, DEPLOY / "README.md"], ids=lambda path: path.stem)
def test_files_exist(path: Path) -> None:
    text = path.read_text()
    for name in _PATH.findall(text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?<![\w/])deploy/[\w./-]+\w", "\n".join(lines(path))):
        # What the operator makes is not committed.
        assert (ROOT / name).exists() or name.startswith(("deploy/secrets", "deploy/nanoswap.env")), name
    for name in _LINK.findall(text):
        assert (path.parent / name).exists(), name
