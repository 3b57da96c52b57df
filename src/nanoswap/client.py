"""The public name of the Python client; its code is in ``serve/client.py`` and ``serve/sync_client.py``."""

from nanoswap.serve.client import AsyncClient
from nanoswap.serve.client_errors import (
    Busy,
    MediaError,
    NanoswapError,
    RequestError,
    SessionError,
    SwapEnded,
    Unavailable,
)
from nanoswap.serve.client_result import Result
from nanoswap.serve.sync_client import Client

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
