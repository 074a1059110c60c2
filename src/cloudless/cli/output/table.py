"""Aligned columns for people and for simple scripts: two spaces between, no borders.

Every cell is made harmless first. On a terminal the last column is cut to the width;
on a pipe nothing is ever cut. Wide letters count double, so that columns stay straight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cloudless.cli.terminal import Terminal, neutral

GAP = "  "
#: The last column keeps at least this width when a terminal is narrow.
MIN_LAST = 20


class Cell(NamedTuple):
    """Text with a style for terminals that have colours."""

    text: str
    style: str = ""


Row = Sequence[str | Cell]


def lines_of(
    header: Sequence[str], rows: Sequence[Row], terminal: Terminal, *, with_header: bool = True
) -> list[str]:
    """The lines of a table."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    shown = ([[Cell(title, "dim") for title in header]] if with_header else []) + cells
    widths = widths_of(shown)
    return [format_row(row, widths, terminal) for row in shown]


def widths_of(rows: Sequence[Sequence[Cell]]) -> list[int]:
    """Width of each column."""
    if not rows:
        return []
    return [max(display_width(row[index].text) for row in rows) for index in range(len(rows[0]))]


def format_row(row: Sequence[Cell], widths: Sequence[int], terminal: Terminal) -> str:
    """One line; the last cell is not padded."""
    parts, used = [], 0
    for index, cell in enumerate(row):
        text = cell.text
        if index == len(row) - 1:
            if terminal.is_terminal:
                text = cut(text, max(terminal.width - used, MIN_LAST))
            parts.append(terminal.paint(text, cell.style))
        else:
            padding = " " * (widths[index] - display_width(text))
            parts.append(terminal.paint(text, cell.style) + padding + GAP)
            used += widths[index] + len(GAP)
    return "".join(parts).rstrip()


def _cell(cell: str | Cell) -> Cell:
    given = cell if isinstance(cell, Cell) else Cell(cell)
    return Cell(neutral(given.text) or "-", given.style)


def display_width(text: str) -> int:
    """Columns that text takes on a terminal.

    >>> display_width("web"), display_width("日本")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def cut(text: str, width: int) -> str:
    """Text of at most ``width`` columns, with dots when something is missing.

    >>> cut("a long sentence", 9)
    'a long...'
    """
    if display_width(text) <= width:
        return text
    if text.isascii():
        return text[: max(width - 3, 0)] + "..."
    kept = ""
    for letter in text:
        if display_width(kept + letter) > width - 3:
            break
        kept += letter
    return kept + "..."
