"""Draw the timelines of docs/strategies from journals of rollouts that really ran.

``python tools/draw_timelines.py`` draws each page's picture (.svg) and table from the journal
beside it (.json); ``--check`` exits 1 when they do not match. ``--record ADDRESS`` first
makes new journals at a running cluster, such as ``./demo``'s: the manifest of each page
is rolled out, updated, and promoted by somebody who takes a second for it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

FOLDER = ROOT / "docs" / "strategies"
PAGES = ("rolling-update", "recreate", "blue-green", "canary")
LIMIT_S = 120.0
#: How long the person takes who promotes.
THINKING_S = 1.0

COLUMN, ROW, LEFT, TOP = 92, 22, 64, 58
OLD, NEW, GREY, INK = "#4c78a8", "#f58518", "#888888", "#222222"
_CREATED = re.compile(r"create (.+?) of revision (\d+)")
_STOPPED = re.compile(r"stop (.+)")
_SHARE = re.compile(r"(\d+) % revision (\d+)")


@dataclass
class Bar:
    """One replica, from the moment it was decided to make it to that to stop it."""

    name: str
    new: bool
    first: int
    last: int


@dataclass
class Timeline:
    """A journal in columns, one for each moment at which something was decided."""

    entries: list[dict[str, Any]]
    moments: list[float] = field(init=False)
    bars: list[Bar] = field(init=False)
    #: Percent of new connections that the new revision gets from each column on; None: nobody leads them.
    shares: list[int | None] = field(init=False)

    def __post_init__(self) -> None:
        self.moments = sorted({one["offset_s"] for one in self.entries})
        self.bars = self._bars()
        self.shares = self._shares()

    @property
    def end(self) -> int:
        """The column after the last one."""
        return len(self.moments)

    def verbs(self, column: int) -> list[str]:
        """What was decided there, in order."""
        found = [one["verb"] for one in self.entries if one["offset_s"] == self.moments[column]]
        return [verb for at, verb in enumerate(found) if verb not in found[:at]]

    def _column(self, entry: dict[str, Any]) -> int:
        return self.moments.index(entry["offset_s"])

    def _bars(self) -> list[Bar]:
        found: list[Bar] = []
        for entry in self.entries:
            created = _CREATED.search(entry["decided"]) if entry["verb"] == "surge" else None
            stopped = _STOPPED.search(entry["decided"]) if entry["verb"] == "retire" else None
            if created is not None:
                names = created[1].split(", ")
                found += [Bar(name, created[2] != "1", self._column(entry), self.end) for name in names]
            for name in stopped[1].split(", ") if stopped is not None else ():
                living = [bar for bar in found if bar.name == name and bar.last == self.end]
                if not living:  # it was there before the rollout began
                    living = [Bar(name, False, 0, self.end)]
                    found += living
                living[0].last = self._column(entry)
        return sorted(found, key=lambda bar: (bar.new, bar.first, bar.name))

    def _shares(self) -> list[int | None]:
        known: dict[int, int] = {}
        for entry in self.entries:
            parts = _SHARE.findall(entry["decided"])
            if parts:
                known[self._column(entry)] = sum(int(part) for part, revision in parts if revision != "1")
        if not known:
            return [None] * self.end
        found, now = [], 0
        for column in range(self.end):
            now = known.get(column, now)
            found.append(now)
        return found


def svg(title: str, timeline: Timeline) -> str:
    """The picture: a row for each replica, a column for each moment, the traffic below."""
    width = LEFT + COLUMN * timeline.end + 12
    rows = len(timeline.bars)
    led = any(share is not None for share in timeline.shares)
    height = TOP + ROW * rows + (56 if led else 30)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for column in range(timeline.end):
        out += _column(timeline, column, TOP + ROW * rows)
    for row, bar in enumerate(timeline.bars):
        out += _bar(bar, TOP + ROW * row)
    if led:
        out += _traffic(timeline, TOP + ROW * rows + 8)
    out.append(_text(4, height - 8, "blue: revision 1, orange: revision 2; a column for each decision", GREY))
    return "\n".join([*out, "</svg>", ""])


def _column(timeline: Timeline, column: int, bottom: int) -> Iterable[str]:
    x = LEFT + COLUMN * column
    yield f'<line x1="{x}" y1="16" x2="{x}" y2="{bottom}" stroke="#dddddd"/>'
    yield _text(x + 3, 14, f"+{timeline.moments[column]:.2f} s", INK)
    verbs = timeline.verbs(column)
    for line, words in enumerate((verbs[:2], verbs[2:4])):
        yield _text(x + 3, 30 + 14 * line, ", ".join(words), GREY)


def _bar(bar: Bar, y: int) -> Iterable[str]:
    x, end = LEFT + COLUMN * bar.first, LEFT + COLUMN * bar.last
    yield _text(4, y + 13, bar.name, INK)
    colour = NEW if bar.new else OLD
    yield f'<rect x="{x}" y="{y + 3}" width="{end - x}" height="{ROW - 6}" rx="3" fill="{colour}"/>'


def _traffic(timeline: Timeline, y: int) -> Iterable[str]:
    yield _text(4, y + 13, "traffic", INK)
    for column, share in enumerate(timeline.shares):
        x, part = LEFT + COLUMN * column, round(COLUMN * (share or 0) / 100)
        yield f'<rect x="{x}" y="{y + 3}" width="{COLUMN - part}" height="{ROW - 6}" fill="{OLD}"/>'
        yield f'<rect x="{x + COLUMN - part}" y="{y + 3}" width="{part}" height="{ROW - 6}" fill="{NEW}"/>'
        yield _text(x + 4, y + 15, f"{share} % new", "#ffffff")


def _text(x: int, y: int, words: str, fill: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{fill}">{escape(words)}</text>'


def table(entries: list[dict[str, Any]]) -> str:
    """The journal as lines: when, verb, what was seen and decided, and why."""
    lines = ["```text"]
    for one in entries:
        why = f" ({one['because']})" if one["because"] else ""
        lines.append(f"+{one['offset_s']:.2f} s  {one['verb']:<8} {one['seen']}: {one['decided']}{why}")
    return "\n".join([*lines, "```"])


def drawn(name: str) -> dict[Path, str]:
    """The picture and the page as they should be."""
    entries = json.loads((FOLDER / f"{name}.json").read_text())["journal"]
    page = FOLDER / f"{name}.md"
    block = f"<!-- timeline -->\n{table(entries)}\n<!-- end -->"
    text = re.sub(r"<!-- timeline -->.*?<!-- end -->", lambda _: block, page.read_text(), flags=re.DOTALL)
    return {FOLDER / f"{name}.svg": svg(f"timeline of {name}", Timeline(entries)), page: text}


async def record(address: str) -> None:
    """Make a journal for each page."""
    import cloudless
    from cloudless.sdk.manifest.reading import read_text

    async with cloudless.connect(address) as client:
        for name in PAGES:
            found = re.search(r"```yaml\n(.*?)```", (FOLDER / f"{name}.md").read_text(), re.DOTALL)
            assert found is not None, f"{name}.md has no manifest"
            (manifest,) = read_text(found[1], f"{name}.md")
            journal = await _played(client, manifest)
            (FOLDER / f"{name}.json").write_text(json.dumps({"journal": journal}, indent=1) + "\n")
            print(f"{name}: {len(journal)} entries")


async def _played(client: Any, manifest: Any) -> list[dict[str, Any]]:
    """Roll the manifest out, update it, promote when asked to; the update's journal."""
    web = await client.follow(await client.apply(manifest.workload), timeout_s=LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        await client.update(web.name, env={"GREETING": "good evening"})
        while True:
            rollout = (await client.get(web.name)).status.rollout
            if rollout.phase.name == "WAITING_PROMOTION":
                await asyncio.sleep(THINKING_S)
                await client.promote(web.name)
            over = rollout.revision == 2 and rollout.phase.name == "COMPLETED"
            if over and not rollout.pending and not rollout.stage and not rollout.old_replicas:
                break
            await asyncio.sleep(0.05)
    past = await client.rollout_of(web.name, 2)
    await client.follow(await client.delete(web.name, grace_s=0), "deleted", timeout_s=LIMIT_S)
    first = past.journal[0].at
    return [
        {
            "offset_s": round((entry.at - first).total_seconds(), 3),
            "verb": entry.verb,
            "phase": entry.phase,
            "seen": entry.seen,
            "decided": re.sub(r" until [0-9:]+ UTC", "", entry.decided),
            "because": entry.because,
        }
        for entry in past.journal
    ]


def main() -> int:
    """Draw; record before, or only compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--record", metavar="ADDRESS", help="make new journals there first")
    options.add_argument("--check", action="store_true", help="change nothing")
    given = options.parse_args()
    if given.record:
        asyncio.run(record(given.record))
    wrong = []
    for name in PAGES:
        for path, text in drawn(name).items():
            if not path.exists() or path.read_text() != text:
                wrong.append(path.name)
                if not given.check:
                    path.write_text(text)
    if given.check and wrong:
        print(f"{', '.join(wrong)}: not as the journals say; run: python tools/draw_timelines.py")
    return int(given.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
