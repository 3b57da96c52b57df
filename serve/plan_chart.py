"""The day of a plan as one picture: what people wait, by the hour, on a scale of powers of ten. Plain SVG, no library.

Colours are those of Okabe and Ito, which people with colour-blindness tell apart; each line has its name beside it.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 900, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 210, 44, 44
#: Waits below a tenth of a second are drawn as one.
_LEAST: Final = 0.1
_NAMES: Final = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 100: "100 s", 1000: "1000 s", 10_000: "10 000 s", 1e5: "100 000 s"}
_COLOURS: Final = ("#0072b2", "#009e73", "#d55e00", "#cc79a7")


def chart(title: str, lines: Mapping[str, Sequence[float | None]], peak: tuple[int, int]) -> str:
    """An SVG document. ``lines``: name -> 24 waits in seconds by hour UTC, None where nobody came, four lines at most.
    The hours from ``peak[0]`` to before ``peak[1]`` are shaded."""
    highest = max((value for line in lines.values() for value in line if value is not None), default=1.0)
    top = max(2, math.ceil(math.log10(max(highest, _LEAST)) - 1e-9))
    bottom = round(math.log10(_LEAST))
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(hour: float) -> float:
        return _LEFT + inner_width * hour / 24

    def y(seconds: float) -> float:
        height = (math.log10(max(seconds, _LEAST)) - bottom) / (top - bottom)
        return _TOP + inner_height * (1 - height)

    floor = _TOP + inner_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13" fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<rect x="{x(peak[0]):.1f}" y="{_TOP}" width="{x(peak[1]) - x(peak[0]):.1f}" height="{inner_height}" '
        'fill="#f2efe6"/>',
        f'<text x="{_LEFT}" y="24" font-size="15">{escape(title)}</text>',
    ]
    for power in range(bottom, top + 1):
        height = y(10.0**power)
        parts.append(f'<path d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}" stroke="#ccc"/>')
        name = _NAMES.get(10**power, f"1e{power} s")
        parts.append(f'<text x="{_LEFT - 8}" y="{height + 4:.1f}" text-anchor="end">{name}</text>')
    for hour in range(0, 25, 2):
        parts.append(f'<text x="{x(hour):.1f}" y="{floor + 20}" text-anchor="middle">{hour}</text>')
    parts.append(f'<text x="{x(24) + 14:.1f}" y="{floor + 20}">hour UTC</text>')
    for row, (colour, (name, line)) in enumerate(zip(_COLOURS, lines.items(), strict=False)):
        for run in _runs(line):
            points = " ".join(f"{x(hour + 0.5):.1f},{y(value):.1f}" for hour, value in run)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        height = _TOP + 12 + 24 * row
        parts.append(f'<path d="M{_WIDTH - _RIGHT + 14} {height - 4}h22" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 42}" y="{height}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _runs(line: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """Stretches of hours with a value: a gap is drawn as one."""
    runs: list[list[tuple[int, float]]] = [[]]
    for hour, value in enumerate(line):
        if value is not None:
            runs[-1].append((hour, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
