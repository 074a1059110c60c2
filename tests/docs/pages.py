"""The pages as tests see them: fenced blocks with their place, command lines, links, anchors."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<text>.+?) *$", re.MULTILINE)
_NOT_IN_ANCHOR = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; ``line`` is that of its first line of text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Where it stands: docs/quickstart.md:38."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Command lines: after "$ " in a console, every line of a script; continued lines joined."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            return [line[2:].strip() for line in text.splitlines() if line.startswith("$ ")]
        if self.language == "sh":
            lines = (line.strip() for line in text.splitlines())
            return [line for line in lines if line and not line.startswith("#")]
        return []


def blocks(*languages: str, page: Path | None = None) -> list[Block]:
    """All blocks in these languages, in the order of the pages."""
    found = []
    for path in PAGES if page is None else [page]:
        text = path.read_text()
        for match in _FENCE.finditer(text):
            if match["language"] in languages:
                line = text.count("\n", 0, match.start()) + 2
                found.append(Block(path, line, match["language"], match["text"]))
    return found


def cloudless_words(command: str) -> Iterator[list[str]]:
    """The words after ``cloudless`` of every call of it in a shell's command line.

    >>> list(cloudless_words("cloudless schema > x.json; sudo cloudless get nodes | head  # two"))
    [['schema'], ['get', 'nodes']]
    """
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    calls: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if word in ("|", "||", "&&", ";", "&"):
            calls.append([])
        elif word in (">", ">>", "<"):
            skip = True  # the next word is a file
            if calls[-1] and calls[-1][-1] in ("1", "2"):
                del calls[-1][-1]
        elif skip:
            skip = False
        else:
            calls[-1].append(word)
    for words in calls:
        while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
            del words[0]
        if words and words[0] == "cloudless":
            yield words[1:]


def links(page: Path) -> list[str]:
    """Targets of all links outside of blocks."""
    return [match["target"] for match in _LINK.finditer(_FENCE.sub("", page.read_text()))]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name after "#", as renderers make it of the headings."""
    found: set[str] = set()
    for match in _HEADING.finditer(_FENCE.sub("", page.read_text())):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match["text"])
        base = _NOT_IN_ANCHOR.sub("", text.lower()).replace(" ", "-")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found
