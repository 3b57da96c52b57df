"""Reading one setting from the environment: its value, or an error that names the variable and what it needs."""

from collections.abc import Mapping
from typing import TypeVar

Word = TypeVar("Word", bound=str)


class SettingsError(ValueError):
    """A setting is missing or has a value that the service can't run with."""


def number(environment: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = environment.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SettingsError(f"{name} must be a number from {low:g} to {high:g}")
    return value


def integer(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    value = number(environment, name, default, low, high)
    if value != int(value):
        raise SettingsError(f"{name} must be a whole number from {low} to {high}")
    return int(value)


def one_of(environment: Mapping[str, str], name: str, default: Word, allowed: tuple[Word, ...]) -> Word:
    value = environment.get(name, default)
    for word in allowed:
        if word == value:
            return word
    raise SettingsError(f"{name} must be one of {', '.join(allowed)}")
