"""Which lines of a chunk pass, and in what form. Pure; patterns take linear time.

The agent lets chunks through it, the coordinator only checks patterns. It takes every line
of a chunk for a whole one: ``logjudge`` puts the pieces of a line together before. What a pattern
costs is bounded by its compiled size and the length of a line; who has a loop to keep
running calls ``apply`` on another thread when ``has_patterns`` (matching lets go of the
interpreter's lock).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from cloudless.domain import loglines
from cloudless.domain.errors import Invalid
from cloudless.domain.logstream import BOTH, LogQuery

#: Patterns of one request, characters of one, and bytes of one when compiled.
MAX_PATTERNS = 16
MAX_PATTERN_CHARS = 1000
MAX_COMPILED_BYTES = 64 * 1024
_STAMP = re.compile(rb"(?m)^([^\n]{30} )(std(?:out|err) . )")
_HEAD = loglines.HEAD_BYTES

Search = Callable[[bytes], Any]


def compile_patterns(field: str, texts: Sequence[str]) -> list[Search]:
    """Search functions of RE2 patterns; raises ``Invalid`` that names the pattern."""
    if len(texts) > MAX_PATTERNS:
        raise Invalid.field(field, f"must be at most {MAX_PATTERNS} patterns")
    return [_compile(f"{field}[{number}]", text) for number, text in enumerate(texts)]


def _compile(path: str, text: str) -> Search:
    import re2  # type: ignore[import-untyped]  # only who filters pays for it

    if len(text) > MAX_PATTERN_CHARS:
        raise Invalid.field(path, f"must have at most {MAX_PATTERN_CHARS} characters")
    options = re2.Options()
    options.max_mem = MAX_COMPILED_BYTES
    options.log_errors = False
    try:
        search: Search = re2.compile(text, options).search
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0] if error.args else ""
        told = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise Invalid.field(path, f"is not a regular expression that can be used: {told[:200]}") from None
    return search


class LogFilter:
    """The filter of one request; raises ``Invalid`` for a bad pattern."""

    def __init__(self, query: LogQuery) -> None:
        self.streams: Collection[str] = query.streams
        self._include = compile_patterns("include", query.include)
        self._exclude = compile_patterns("exclude", query.exclude)
        self._timestamps = query.timestamps
        #: Whether matching may take long.
        self.has_patterns = bool(self._include or self._exclude)
        #: Whether every chunk passes as it is.
        self.is_open = not (self.has_patterns or self._timestamps or query.streams != BOTH)

    def apply(self, chunk: bytes) -> bytes:
        """The lines that pass, in the form that was asked for."""
        chunk = loglines.only(chunk, self.streams)
        if self.has_patterns:
            lines = chunk.split(b"\n")
            lines.pop()
            if len(self._include) == 1:
                find = self._include[0]
                lines = [line for line in lines if find(line[_HEAD:])]
            elif self._include:
                lines = [line for line in lines if any(find(line[_HEAD:]) for find in self._include)]
            for find in self._exclude:
                lines = [line for line in lines if not find(line[_HEAD:])]
            chunk = b"\n".join(lines) + b"\n" if lines else b""
        return self.stamped(chunk)

    def stamped(self, chunk: bytes) -> bytes:
        """Lines in the form that was asked for."""
        return _STAMP.sub(rb"\1\2\1", chunk) if self._timestamps else chunk

    def keeps(self, line: bytes) -> bool:
        """Whether a line, with its head and without its line feed, is of a stream that is wanted."""
        return len(self.streams) != 1 or line[31:37].decode("ascii", "replace") in self.streams

    def matches(self, text: bytes) -> bool:
        """Whether the patterns let a line through, given without its head and line feed."""
        for search in self._include:
            if search(text):
                break
        else:
            if self._include:
                return False
        return not (self._exclude and any(search(text) for search in self._exclude))
