"""Words of the command line that stand for settings about engines, for commands that work on this machine."""

import argparse
from typing import Final

_VARIABLES: Final = {
    "engine": ("NANOSWAP_ENGINE", "NAME", "engines with commas between, the default one first (NANOSWAP_ENGINE, mesh)"),
    "models": ("NANOSWAP_MODELS", "DIR", "folder of weights (NANOSWAP_MODELS)"),
    "manifest": ("NANOSWAP_MANIFEST", "FILE", "what the weights are (NANOSWAP_MANIFEST)"),
    "accept": ("NANOSWAP_ACCEPT_LICENCES", "LICENCES", "licences that you accept (NANOSWAP_ACCEPT_LICENCES)"),
}


def add_words(parser: argparse.ArgumentParser, *, engine: bool = True) -> None:
    """``--engine`` (unless the command is about no engine), ``--models``, ``--manifest`` and ``--accept``."""
    for word, (_, metavar, text) in _VARIABLES.items():
        if engine or word != "engine":
            parser.add_argument(f"--{word}", metavar=metavar, help=text)


def given(arguments: argparse.Namespace) -> dict[str, str]:
    """The words that were given, as the environment variables that they come before."""
    values = {variable: getattr(arguments, word, None) for word, (variable, *_) in _VARIABLES.items()}
    return {variable: value for variable, value in values.items() if value is not None}
