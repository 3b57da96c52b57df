"""Keep a replica's internal port to itself when the service runs on one machine.

Ray Serve 2.60 binds every replica's gRPC server, which unpickles what it is sent, to all interfaces, whatever address
the cluster has (``ray/serve/_private/replica.py``, ``"[::]:0"``). On a cluster of several machines it must be reachable
and belongs behind a network policy; on one machine it must not be. Ray offers no setting, so the one function that
opens the port is wrapped in the replica's own process, before it is called. A test lists the listening sockets.
"""

import logging

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def keep_internal_ports_on_loopback(host: str) -> None:
    """Call in a replica's constructor. Does nothing unless the service itself listens on loopback."""
    if host not in _LOOPBACK:
        return
    from ray.serve._private import replica

    open_port = getattr(replica, "add_port_to_grpc_server", None)
    if open_port is None:
        log.warning("this Ray opens its replica port in another way: check that it is not reachable from outside")
        return

    def open_on_loopback(server: object, address: str) -> int:
        return int(open_port(server, address.replace("[::]", "127.0.0.1")))

    vars(replica)["add_port_to_grpc_server"] = open_on_loopback
