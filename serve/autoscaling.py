"""The number of replicas of one line, as Ray Serve's controller asks for it ten times a second.

The controller is one process that everything else of Serve waits for, so nothing here waits: a thread looks at the room
(`LineWatch`), and `desired` decides. When the room can't be seen, what is asked for stays, and only the clock may add
to it: a queue that nobody sees is no reason to let replicas go.

Ray sends this module by value, and writes a policy's arguments into its log. So the only argument is the kind; the
rest, the store's password with it, is read from the environment of the controller, which must be that of the replicas.
"""

import os
import time
import weakref
from typing import TYPE_CHECKING

from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.scaling import Demand, Fleet, desired, floor, follow
from nanoswap.queue.ticket import Kind
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.line_watch import LineWatch
from nanoswap.serve.settings import Settings

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext


class LinePolicy:
    """An autoscaling policy of Ray Serve for the line of ``kind``. Raises SettingsError where its number is fixed."""

    def __init__(self, kind: str) -> None:
        settings = Settings.from_environment(os.environ)
        rules = settings.rules(Kind(kind))
        if rules is None:
            raise SettingsError(
                f"NANOSWAP_{kind.upper()}_MAX_REPLICAS must be set in the environment of Ray's controller"
            )
        self._rules = rules
        self._watch = LineWatch(RedisRoom(settings.redis_url, Policy()), Kind(kind))
        # Ray drops a policy without a word when an application is deployed anew.
        weakref.finalize(self, self._watch.close)
        self._fleet: Fleet | None = None

    def __call__(self, context: "AutoscalingContext") -> tuple[int, dict[str, object]]:
        """Replicas to ask for, and the state that Ray keeps for a policy: none."""
        now = time.time() if context.current_time is None else context.current_time
        target, ready = context.target_num_replicas, context.current_num_replicas
        line = self._watch.line()
        if line is None:
            # What was calm before says nothing about the time that nobody saw.
            self._fleet = None
            return max(target, floor(self._rules, now)), {}
        turns = line.granted + line.running
        # Clips that a replica holds and doesn't work on yet wait as those in line do, and nobody sees it there.
        inside = max(0, turns - ready * self._rules.slots) * (0.0 if line.service is None else line.service.p50)
        demand = Demand(
            work=line.work_seconds + inside,
            oldest=line.oldest_seconds,
            turns=turns,
            p95=None if line.wait is None else line.wait.p95,
        )
        self._fleet = follow(self._fleet, demand, target=target, ready=min(ready, target), now=now)
        return desired(demand, self._rules, now, self._fleet), {}
