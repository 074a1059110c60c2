"""What was measured, against what it should be: samples, one row for each figure, the table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

#: Whose samples they are, in the table's order.
FLOOR, OURS, SWARM = "floor", "ours", "swarm"


@dataclass(frozen=True)
class Target:
    """The bound of one figure, in its unit; ``floor_factor`` is a bound by the floor's p50."""

    p50: float | None = None
    p95: float | None = None
    floor_factor: float | None = None

    def text(self) -> str:
        if self.floor_factor is not None:
            return f"<= {self.floor_factor:g} x floor"
        if self.p50 is None:
            return ""
        return f"<= {self.p50:g}" + (f", p95 {self.p95:g}" if self.p95 is not None else "")


@dataclass
class Figure:
    """One line of the table; ``floor_is`` says what the floor does."""

    name: str
    unit: str
    target: Target = Target()
    floor_is: str = ""
    #: Higher is better (lines per second), so the target is a lower bound.
    rising: bool = False
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, whose: str, *values: float) -> None:
        """Note samples, in the figure's unit."""
        self.samples.setdefault(whose, []).extend(values)

    def p50(self, whose: str) -> float | None:
        found = self.samples.get(whose)
        return statistics.median(found) if found else None

    def p95(self, whose: str) -> float | None:
        found = self.samples.get(whose)
        return quantile(found, 0.95) if found else None

    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        ours, floor, target = self.p50(OURS), self.p50(FLOOR), self.target
        if ours is None:
            return None
        if target.floor_factor is not None:
            return None if floor is None else ours <= floor * target.floor_factor
        if target.p50 is None:
            return None
        if self.rising:
            return ours >= target.p50
        worst = self.p95(OURS)
        return ours <= target.p50 and (target.p95 is None or (worst is not None and worst <= target.p95))


class Results:
    """All figures of a run, in the order in which they were asked for."""

    def __init__(self) -> None:
        self.figures: dict[str, Figure] = {}
        self.notes: list[str] = []

    def figure(self, name: str, unit: str, target: Target = Target(), **more: Any) -> Figure:
        """The figure of this name; made when it is new."""
        if name not in self.figures:
            self.figures[name] = Figure(name, unit, target, **more)
        return self.figures[name]

    def note(self, text: str) -> None:
        """Something the reader of the table should know."""
        if text not in self.notes:
            self.notes.append(text)

    def table(self) -> str:
        """A Markdown table."""
        head = (
            "figure",
            "unit",
            "target",
            "floor",
            "ours p50 / p95",
            "ours / floor",
            "",
            "Docker Swarm",
            "n",
        )
        rows = [head, ("---",) * len(head), *(_row(figure) for figure in self.figures.values())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = []
        for row in rows:
            cells = (
                "-" * width if cell == "---" else cell.ljust(width)
                for cell, width in zip(row, widths, strict=True)
            )
            lines.append("| " + " | ".join(cells) + " |")
        floors = [f"- {one.name}: {one.floor_is}" for one in self.figures.values() if one.floor_is]
        notes = [f"- {text}" for text in self.notes]
        return "\n".join(
            [*lines, "", "What the floor is:", *floors, *(["", "Notes:", *notes] if notes else [])]
        )

    def data(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            "figures": [
                {
                    "name": one.name,
                    "unit": one.unit,
                    "target": one.target.text(),
                    "reached": one.reached(),
                    "samples": {whose: [round(v, 4) for v in found] for whose, found in one.samples.items()},
                }
                for one in self.figures.values()
            ],
            "notes": self.notes,
        }


def quantile(samples: Sequence[float], share: float) -> float:
    """The value that this share of the samples does not exceed, interpolated.

    >>> quantile([1, 2, 3], 0.5)
    2.0
    """
    ordered = sorted(samples)
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _row(figure: Figure) -> tuple[str, ...]:
    floor, ours, swarm = (figure.p50(whose) for whose in (FLOOR, OURS, SWARM))
    worst = figure.p95(OURS)
    many = len(figure.samples.get(OURS, ())) > 1
    told = (
        "" if ours is None else number(ours) + (f" / {number(worst)}" if many and worst is not None else "")
    )
    ratio = f"{ours / floor:.2f}" if ours is not None and floor else ""
    verdict = {True: "reached", False: "MISSED", None: ""}[figure.reached()]
    target = figure.target.text().replace("<=", ">=") if figure.rising else figure.target.text()
    return (
        figure.name,
        figure.unit,
        target,
        "" if floor is None else number(floor),
        told,
        ratio,
        verdict,
        "" if swarm is None else number(swarm),
        str(len(figure.samples.get(OURS, ()))),
    )


def number(value: float) -> str:
    """Three digits that matter.

    >>> number(0.12345), number(12.345), number(123456)
    ('0.123', '12.3', '123,456')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
