"""Where a request comes from, as far as it can be known, and never as the request itself would have it.

The edge writes the address of its peer into ``PEER_HEADER``, over whatever came under that name, so behind it the
header is the truth. Where proxies of the operator's stand before the edge (a tunnel, a content network), each appends
its own peer to ``X-Forwarded-For`` (RFC 7239 §7.4 describes the practice): with n of them the n-th entry from the right
was written by the outermost one that is trusted, and everything left of it by anybody.
"""

import ipaddress

from starlette.datastructures import Headers
from starlette.types import Scope

PEER_HEADER = "x-nanoswap-peer"


def client_address(scope: Scope, proxies: int) -> str:
    """The owner of the bucket of a request: an IPv4 address, or the first 64 bits of an IPv6 address.

    A household or a telephone has a network of 64 bits to itself, and one that has 256 of them (/56) gains nothing but
    requests without a session. ``proxies``: how many trusted ones stand before the edge. "unknown" when there is
    nothing to read, which all such requests share.
    """
    headers = Headers(scope=scope)
    client = scope.get("client")
    peer = headers.get(PEER_HEADER) or (client[0] if client else "")
    if proxies:
        passed = [entry.strip() for line in headers.getlist("x-forwarded-for") for entry in line.split(",")]
        if len(passed) >= proxies:
            return _network(passed[-proxies]) or _network(peer) or "unknown"
    return _network(peer) or "unknown"


def _network(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.removeprefix("[").partition("]")[0].partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
