"""What a fuzzing run may cost and what came of it."""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

#: A single input that takes longer hangs, whatever the machine.
HANG_SECONDS = 60.0


@dataclass(slots=True)
class Tally:
    """Counts executions against a budget: so many, or so many seconds; whichever is not None."""

    executions: int | None = None
    seconds: float | None = None
    done: int = 0
    #: What failed, once each: name of the input's maker, and where it broke.
    failures: dict[str, str] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> bool:
        if self.executions is not None and self.done >= self.executions:
            return True
        return self.seconds is not None and time.monotonic() - self._began >= self.seconds

    @contextmanager
    def execution(self, name: str) -> Iterator[None]:
        """Run one input. What it raises is noted and goes no further, so that the run finds more than one."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            self.failures.setdefault(f"{name}: {type(error).__name__} at {place}", f"{error}"[:600])
        if time.monotonic() - began > HANG_SECONDS:
            self.failures.setdefault(f"{name}: took longer than {HANG_SECONDS:g} s", "")
        self.done += 1
