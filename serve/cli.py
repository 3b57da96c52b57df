"""The command line: ``nanoswap swap SOURCE TARGET -o OUT`` and what belongs to it.

Results and answers go to standard output, progress to standard error. Exit codes: 0 done, 2 bad input, 3 refused for
now, 4 service unavailable or too slow, 130 interrupted. Every failure is one line.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from nanoswap import __version__
from nanoswap.pipelines.manifest import ManifestError
from nanoswap.pipelines.model_store import ModelError
from nanoswap.queue.redis_server import NoRedisServer
from nanoswap.serve import cli_eval, cli_models, cli_plan, cli_prove
from nanoswap.serve.cli_progress import Progress, seconds_range
from nanoswap.serve.cli_words import add_words, given
from nanoswap.serve.client_errors import Busy, NanoswapError, SwapEnded, Unavailable
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.model_pull import Unreachable
from nanoswap.serve.sync_client import Client

BAD_INPUT, REFUSED, UNAVAILABLE, INTERRUPTED = 2, 3, 4, 130
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UsageError(Exception):
    """The words of the command line don't fit together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except Unreachable as error:
        return _fail(str(error), UNAVAILABLE)
    except (UsageError, SettingsError, ManifestError, ModelError, NoRedisServer) as error:
        return _fail(str(error), BAD_INPUT)
    except (Busy, SwapEnded) as error:
        wait = f" Try again in {error.retry_after:g} s." if error.retry_after else ""
        return _fail(f"{error}{wait}", REFUSED)
    except Unavailable as error:
        return _fail(str(error), UNAVAILABLE)
    except NanoswapError as error:
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(text: str, code: int) -> int:
    print(f"nanoswap: {text}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Words that make no sense are one line too."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"nanoswap: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="nanoswap", description="Swap faces; pictures and clips stay in volatile memory."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        if name != "serve":
            sub.add_argument("--url", help="address of the service (NANOSWAP_URL, http://127.0.0.1:8000)")
            sub.add_argument("--json", action="store_true", help="answer as JSON")
        if name not in ("serve", "queue"):
            sub.add_argument("--token", help="access token (NANOSWAP_TOKEN)")
            sub.add_argument("--demo", action="store_true", help="use the demo account of a development service")
        return sub

    swap = command("swap", _swap, "put the face of SOURCE into TARGET, a picture or a clip")
    swap.add_argument("source", metavar="SOURCE")
    swap.add_argument("target", metavar="TARGET")
    swap.add_argument("-o", "--out", required=True, metavar="OUT")
    swap.add_argument("--faces", default="all", help="all, largest, or face ids with commas between")
    swap.add_argument("--source-face", metavar="ID")
    swap.add_argument("--engine", metavar="NAME", help="one of the service's engines; default its first that can")
    swap.add_argument("--format", default="same", choices=["same", "jpeg", "png", "webp", "avif"])
    swap.add_argument("--quality", type=int, default=92)
    swap.add_argument("--seed", type=int, default=0, metavar="N", help="of a picture: another N, another try")
    swap.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    swap.add_argument("--consent", action="store_true", help="agree to the consent statement")
    swap.add_argument("--force", action="store_true", help="overwrite OUT")
    swap.add_argument("--start", type=_seconds, default=0.0, metavar="SECONDS", help="of a clip: begin here")
    swap.add_argument("--end", type=_seconds, metavar="SECONDS", help="of a clip: end before this")
    swap.add_argument("--at", type=_seconds, metavar="SECONDS", help="of a clip: the frame that --faces are from")
    faces = command("faces", _faces, "find the faces of a picture, or of a frame of a clip")
    faces.add_argument("target", metavar="TARGET")
    faces.add_argument("--at", type=_seconds, default=0.0, metavar="SECONDS", help="of a clip: which frame")
    command("queue", _queue, "how long it takes now")
    command("quota", _quota, "what is left of the account's fair share")
    cancel = command("cancel", _cancel, "leave the line")
    cancel.add_argument("ticket", metavar="TICKET")
    login = command("login", _login, "print an access token")
    login.add_argument("--email")
    prove = command("prove", _prove, "search a running service of this machine for what it was given (root)")
    cli_prove.add_words(prove)
    serve = command("serve", _serve, "run the service on this machine")
    add_words(serve)
    cli_models.add(commands)
    cli_eval.add(commands)
    cli_plan.add(commands)
    return parser


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("seconds are 0 or more")
    return value


def _client(arguments: argparse.Namespace) -> Client:
    client = Client(
        arguments.url, token=getattr(arguments, "token", None), timeout=getattr(arguments, "timeout", 600.0)
    )
    if getattr(arguments, "demo", False):
        try:
            auth = client.config()["auth"]
            if auth["demo"] is None or urlsplit(auth["url"]).hostname not in _LOOPBACK:
                raise UsageError("--demo is for a development service on this machine")
            client.sign_in(auth["demo"]["email"], auth["demo"]["password"])
        except BaseException:
            client.__exit__(None, None, None)
            raise
    return client


def _swap(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    if not out.parent.is_dir():
        raise UsageError(f"{out.parent} is not a folder")
    if not os.access(out.parent, os.W_OK):
        raise UsageError(f"{out.parent} can't be written to")
    if out.is_dir():
        raise UsageError(f"{out} is a folder")
    if out.exists() and not arguments.force:
        raise UsageError(f"{out} exists: use --force to overwrite it")
    with _client(arguments) as client:
        show = Progress(sys.stderr.isatty())
        try:
            result = client.swap(
                arguments.source,
                arguments.target,
                consent=arguments.consent or _agree(client),
                faces=arguments.faces,
                source_face=arguments.source_face,
                engine=arguments.engine,
                format=arguments.format,
                quality=arguments.quality,
                seed=arguments.seed,
                at=arguments.at,
                start=arguments.start,
                end=arguments.end,
                watch=show,
            )
        finally:
            show.end()
    try:
        result.save(out)
    except OSError as error:
        raise UsageError(f"{out} can't be written: {error.strerror or 'unknown reason'}") from None
    answer = {"out": str(out), "gpu_seconds": result.gpu_seconds, "ticket": result.ticket_id}
    counts = {"faces": result.faces, "frames": result.frames}
    answer |= {name: count for name, count in counts.items() if count is not None}
    print(json.dumps(answer) if arguments.json else out)
    return 0


def _agree(client: Client) -> bool:
    text = client.config()["consent"]["text"]
    if not sys.stdin.isatty():
        raise UsageError(f"--consent is needed; it says: {text}")
    print(text, file=sys.stderr)
    print("Do you agree? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("not agreed, nothing was sent")
    return True


def _faces(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        found = client.faces(arguments.target, at=arguments.at)
    lines = (
        f"{face['id']}  {face['box'][2]}×{face['box'][3]} at {face['box'][0]},{face['box'][1]}"
        for face in found["faces"]
    )
    _answer(arguments, found, "\n".join(lines) or "no faces")
    return 0


def _queue(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        line = client.queue()
    lines = {"images": line["image"], "clips": line["video"]}
    text = "\n".join(f"{name}: {_line(one)}" for name, one in lines.items() if one is not None)
    _answer(arguments, line, text)
    return 0


def _line(line: dict[str, Any]) -> str:
    wait = f"about {seconds_range(line['eta'])}" if line["eta"] else "closed: no GPU is ready"
    return f"{line['waiting']} waiting, {line['running']} running, {wait}"


def _quota(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        quota = client.quota()
    text = (
        f"{quota['available_seconds']:g} of {quota['horizon_seconds']:g} GPU seconds left, "
        f"full again in {quota['refill_seconds']:g} s, {quota['open_tickets']} of {quota['max_tickets']} places taken"
    )
    _answer(arguments, quota, text)
    return 0


def _cancel(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        client.cancel(arguments.ticket)
    return 0


def _login(arguments: argparse.Namespace) -> int:
    with Client(arguments.url) as client:
        if arguments.demo:
            with _client(arguments) as demo:
                account = demo.config()["auth"]["demo"]
            token = client.sign_in(account["email"], account["password"])
        else:
            if not arguments.email:
                raise UsageError("give --email ADDRESS, or --demo for a development service")
            from getpass import getpass

            token = client.sign_in(arguments.email, getpass("Password: "))
    _answer(arguments, {"access_token": token}, token)
    return 0


def _prove(arguments: argparse.Namespace) -> int:
    with _client(arguments) as client:
        config = client.config()
        client.quota()  # the session is good, or it is said now
        token, url = client.token, client.url
    return cli_prove.run(arguments, config, token, url)


def _serve(arguments: argparse.Namespace) -> int:
    # Imported late: this is the only command that needs Ray.
    from nanoswap.serve.local import run

    os.environ.update(given(arguments))
    try:
        return run(os.environ, say=lambda text: print(text, flush=True))
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None


def _answer(arguments: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value) if arguments.json else text)


if __name__ == "__main__":
    sys.exit(main())
