"""What this process may write to any log: never a message that somebody else composed, never an exception's text.

A library logs what it thinks useful: httpx the address it calls, a parser the bytes it chokes on, a server the
exception with its message; and an exception's message is as often as not the value that caused it. So every record is
cut where it is made, before any handler sees it (``logging.setLogRecordFactory`` is process-wide, whatever formatter a
framework installs):

- ours (``nanoswap.…``) keeps its message: it is written here, with codes and class names only;
- Ray's keeps one line, without exceptions: an operator needs to see replicas start and stop;
- anybody else's becomes the place it was logged at.

An exception is written as its class and the place where it was raised; there is no traceback to print and so no local
variables. The same goes for what Python itself would print of exceptions that nobody catches: those that end a thread,
and those of finalisers and callbacks from C.
"""

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_OURS, _RAY = "nanoswap", "ray"
Factory = Callable[..., logging.LogRecord]


def keep_logs_clean() -> None:
    """Cut every record of this process from now on, and what is printed of uncaught exceptions. Idempotent."""
    made = logging.getLogRecordFactory()
    if not isinstance(made, CleanRecords):
        logging.setLogRecordFactory(CleanRecords(made))
    threading.excepthook = _of_a_thread
    sys.unraisablehook = _of_nobody


class CleanRecords:
    """A record factory in front of another one."""

    def __init__(self, made: Factory) -> None:
        self._made = made

    def __call__(self, *arguments: Any, **more: Any) -> logging.LogRecord:
        record = self._made(*arguments, **more)
        raised = record.exc_info[1] if record.exc_info else None
        record.exc_info = record.exc_text = record.stack_info = None
        room = record.name.partition(".")[0]
        if room == _OURS:
            record.args = _without_exceptions(record.args)
        elif room == _RAY and raised is None and not _holds_exception(record.args) and "\n" not in str(record.msg):
            record.args = _one_line(record)
        else:
            record.msg, record.args = f"(a message of {record.filename}:{record.lineno})", ()
        if raised is not None:
            record.msg, record.args = f"{record.getMessage()}: {place(raised)}", ()
        return record


def _of_a_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        print(f"a thread ended: {place(told.exc_value)}", file=sys.stderr, flush=True)


def _of_nobody(told: "sys.UnraisableHookArgs") -> None:
    if told.exc_value is not None:
        print(f"ignored: {place(told.exc_value)}", file=sys.stderr, flush=True)


def place(error: BaseException) -> str:
    """``ValueError at image.py:120``: the class, and the file and line that raised it."""
    trace: TracebackType | None = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _holds_exception(arguments: object) -> bool:
    values = arguments.values() if isinstance(arguments, dict) else arguments
    return isinstance(values, tuple) and any(isinstance(value, BaseException) for value in values)


def _without_exceptions(arguments: Any) -> Any:
    if isinstance(arguments, tuple):
        return tuple(place(value) if isinstance(value, BaseException) else value for value in arguments)
    return arguments


def _one_line(record: logging.LogRecord) -> Any:
    """The arguments, unless with them the message has several lines, as tracebacks have."""
    if "\n" in record.getMessage():
        record.msg = f"(a message of {record.filename}:{record.lineno})"
        return ()
    return record.args
