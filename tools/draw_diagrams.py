"""Draw the state diagrams of the pages in docs/ from the tables in the code.

Run as ``python tools/draw_diagrams.py [--check]``: rewrites what stands between the
markers ``<!-- diagram NAME -->`` and ``<!-- end -->``; ``--check`` exits 1 when a page
does not match the tables.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from cloudless.domain.node import NODE_TRANSITIONS  # noqa: E402
from cloudless.domain.replica import TRANSITIONS  # noqa: E402
from cloudless.domain.rollout import ROLLOUT_TRANSITIONS  # noqa: E402

PAGES = (ROOT / "docs" / "architecture.md", ROOT / "docs" / "rollouts.md")
TABLES: dict[str, tuple[str, Mapping[Any, Any]]] = {
    "replica": ("PENDING", TRANSITIONS),
    "node": ("READY", NODE_TRANSITIONS),
    "rollout": ("PROGRESSING", ROLLOUT_TRANSITIONS),
}


def diagram(first: str, table: Mapping[Any, Any]) -> str:
    """The table as a Mermaid state diagram, in a stable order."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    for before, followers in table.items():
        lines += [f"    {before.value} --> {after.value}" for after in table if after in followers]
        if not followers:
            lines.append(f"    {before.value} --> [*]")
    return "\n".join([*lines, "```"])


def drawn(page: str) -> str:
    """The page with every diagram redrawn; raises ``KeyError`` for an unknown name."""

    def redraw(found: re.Match[str]) -> str:
        return f"<!-- diagram {found[1]} -->\n{diagram(*TABLES[found[1]])}\n<!-- end -->"

    return re.sub(r"<!-- diagram (\w+) -->.*?<!-- end -->", redraw, page, flags=re.DOTALL)


def main() -> int:
    """Redraw, or compare with ``--check``."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    check = options.parse_args().check
    wrong = 0
    for path in PAGES:
        page = path.read_text()
        new = drawn(page)
        if new != page and check:
            print(f"{path.relative_to(ROOT)} does not match the tables; run: python tools/draw_diagrams.py")
            wrong = 1
        elif new != page:
            path.write_text(new)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
