"""Nanoswap: a hosted face-swap service that keeps media in volatile memory only.

This anchor holds no code. The three rooms live in ``serve/``, ``pipelines/`` and ``queue/`` at the top
of the repository and are mapped onto ``nanoswap.serve``, ``nanoswap.pipelines`` and ``nanoswap.queue``.
"""

__version__ = "0.1.0"
