"""The public name of the Python client; its code is in ``serve/client.py``."""

from nanoswap.serve.client import AsyncClient, Client, Result
from nanoswap.serve.client_errors import (
    Busy,
    MediaError,
    NanoswapError,
    RequestError,
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
