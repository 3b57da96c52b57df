"""``nanoswap eval DIR``: how well an engine swaps, in figures and on one sheet to look at.

``DIR/sources`` holds portraits, ``DIR/targets`` pictures and clips; every source goes onto every target, in this
process. The answer is a table on standard output and, beside the media, ``eval.json`` and ``eval.png``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanoswap.serve.cli_words import add_words, given
from nanoswap.serve.client_errors import MediaError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

COLUMNS = {
    "identity": "identity",
    "target_identity": "target's",
    "pose": "pose °",
    "expression": "expression %",
    "jitter": "jitter %",
}


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    text = "how well an engine swaps: identity, pose, expression, jitter, and a sheet to look at"
    parser = commands.add_parser("eval", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("folder", metavar="DIR", help="with the folders sources and targets")
    parser.add_argument("-o", "--out", metavar="DIR", help="where eval.json and eval.png go; default DIR")
    add_words(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `SettingsError`, `ManifestError`, `ModelError`, `MediaError`."""
    # Imported late: they bring what engines need, and the rest of the command line doesn't.
    from nanoswap.pipelines.errors import PipelineError
    from nanoswap.pipelines.evaluation import evaluate, write_sheet
    from nanoswap.pipelines.judge_load import load_judge
    from nanoswap.serve.client_media import is_clip
    from nanoswap.serve.model_settings import ModelSettings

    settings = ModelSettings.from_environment(os.environ | given(arguments))
    folder = Path(arguments.folder)
    out = Path(arguments.out) if arguments.out else folder
    if not out.is_dir():
        raise MediaError("unreadable", f"{out} is not a folder.")
    sources, targets = _media(folder / "sources"), _media(folder / "targets")
    clips = {name: data for name, data in targets.items() if is_clip(data)}
    manifest = settings.read_manifest()
    settings.check()
    if clips and not manifest.engines[settings.engine].clips:
        names = ", ".join(clips)
        raise MediaError("unsupported", f"{settings.engine} swaps pictures only, and there are clips: {names}")
    store = settings.store(manifest)
    judge = load_judge(manifest.engines[settings.engine], manifest, store, settings.runtime)
    engine = settings.load()[settings.engine]
    try:
        report = evaluate(
            engine,
            judge,
            sources,
            {name: data for name, data in targets.items() if name not in clips},
            clips,
            tell=lambda text: print(text, file=sys.stderr),
        )
    except (PipelineError, ValueError) as error:
        raise MediaError("undecodable", str(error)) from None
    answer = {"engine": settings.engine} | report.as_json()
    (out / "eval.json").write_text(json.dumps(answer, indent=1) + "\n", "utf-8")
    (out / "eval.png").write_bytes(write_sheet(report.sheet))
    print(table(answer))
    return 0


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: notes first, because figures are read without them otherwise."""
    lines = [f"engine: {report['engine']}", *(f"note: {note}" for note in report["notes"]), ""]
    lines += [
        "| source | target | " + " | ".join(COLUMNS.values()) + " | most like |",
        "| --- " * (len(COLUMNS) + 3) + "|",
    ]
    for row in report["rows"]:
        cells = [_figure(row[name]) for name in COLUMNS] if row["failed"] is None else [row["failed"], "", "", "", ""]
        lines.append(f"| {row['source']} | {row['target']} | {' | '.join(cells)} | {row['nearest'] or '-'} |")
    summary = report["summary"]
    lines.append(f"| **mean** | | {' | '.join(_figure(summary[name]) for name in COLUMNS)} | |")
    top = "not measured" if summary["top1"] is None else f"{summary['top1'] * 100:.1f} %"
    lines += [
        "",
        f"swaps: {summary['swaps']:g}, failed: {summary['failed']:g}",
        f"most like their own source (top 1): {top}",
        f"Fréchet distance of features: {_figure(summary['frechet'])}",
    ]
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _media(folder: Path) -> dict[str, bytes]:
    """Every file of a folder by name, in order. Raises `MediaError`."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return {path.name: path.read_bytes() for path in files}
    except OSError as error:
        raise MediaError("unreadable", f"{folder}: {error.strerror or 'not readable'}.") from None
