"""The public name of the Python client; its code is in ``serve/client.py``."""

from nanoswap.serve.client import (
    AsyncClient,
    Busy,
    Client,
    MediaError,
    NanoswapError,
    RequestError,
    Result,
    SessionError,
    SwapEnded,
    Unavailable,
)

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "MediaError",
    "NanoswapError",
    "RequestError",
    "Result",
    "SessionError",
    "SwapEnded",
    "Unavailable",
]
