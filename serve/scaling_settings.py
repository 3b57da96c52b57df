"""What an operator may set about the number of replicas. Read once, like all settings; see `Settings`."""

import re
from collections.abc import Mapping

from nanoswap.queue.scaling import Rules, Window
from nanoswap.queue.ticket import Kind
from nanoswap.serve.environment import SettingsError, integer, number

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Waits that nineteen of twenty people should stay below, in seconds, unless something else is set.
TARGET_WAITS = {Kind.IMAGE: 3.0, Kind.VIDEO: 180.0}
_WINDOW = re.compile(r"(\w{3})(?:-(\w{3}))? (\d\d):(\d\d)-(\d\d):(\d\d) (\d{1,4})")


def scaling_rules(environment: Mapping[str, str], kind: Kind, replicas: int, slots: int) -> Rules | None:
    """The rules of one line; None where its number of replicas is fixed. ``slots``: turns that one replica works on at
    once. Raises SettingsError naming the variable and what it needs."""
    prefix = f"NANOSWAP_{kind.upper()}"
    most = f"{prefix}_MAX_REPLICAS"
    maximum = integer(environment, most, replicas, replicas, 1024)
    windows = parse_windows(f"{prefix}_FLOOR", environment.get(f"{prefix}_FLOOR", ""))
    target_wait = number(environment, f"{prefix}_TARGET_WAIT", TARGET_WAITS[kind], 0.5, 3600.0)
    cold_start = number(environment, "NANOSWAP_COLD_START_SECONDS", 60.0, 1.0, 3600.0)
    step_down = number(environment, "NANOSWAP_STEP_DOWN_SECONDS", 600.0, 1.0, 86_400.0)
    if any(window.replicas > maximum for window in windows):
        raise SettingsError(f"{prefix}_FLOOR asks for more replicas than {most}, which is {maximum}")
    if not replicas and maximum:
        raise SettingsError(f"{most} is set, but {prefix}_REPLICAS is 0, which closes the line")
    if maximum == replicas:
        return None
    return Rules(
        slots=slots,
        minimum=replicas,
        maximum=maximum,
        target_wait=target_wait,
        cold_start=cold_start,
        step_down=step_down,
        windows=windows,
    )


def parse_windows(name: str, text: str) -> tuple[Window, ...]:
    """Windows with commas between, each ``mon-fri 13:45-22:00 4``: days, hours in UTC, replicas. An end that isn't
    after the begin is on the next day. Raises SettingsError naming the variable ``name``."""
    return tuple(_window(name, part.strip()) for part in text.split(",")) if text.strip() else ()


def _window(name: str, text: str) -> Window:
    found = _WINDOW.fullmatch(text.lower())
    first, last = (found[1], found[2] or found[1]) if found else ("", "")
    if found is None or first not in DAYS or last not in DAYS:
        raise SettingsError(f"{name} must be like 'mon-fri 13:45-22:00 4, sat-sun 11:00-23:30 6', hours in UTC")
    hours = [int(found[3]), int(found[5])]
    minutes = [int(found[4]), int(found[6])]
    if max(hours) > 23 or max(minutes) > 59:
        raise SettingsError(f"{name} must have hours from 00:00 to 23:59")
    begin, end = (60 * hour + minute for hour, minute in zip(hours, minutes, strict=True))
    begins, ends = DAYS.index(first), DAYS.index(last)
    days = frozenset((begins + step) % 7 for step in range((ends - begins) % 7 + 1))
    return Window(days=days, begin=begin, end=end, replicas=int(found[7]))
