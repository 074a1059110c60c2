"""cp: what words mean, and what is shown."""

from __future__ import annotations

import io

import pytest

from cloudless.cli.naming import Named
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal
from cloudless.cli.verbs.cp import MAX_SHOWN, Remote, Shown, parse_place, size_text
from cloudless.sdk.copying.copier import Copied
from cloudless.sdk.copying.unpacking import LeftOut


class Screen(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, **options: bool) -> Shown:
    return Shown(Terminal(stream, {"TERM": "xterm"}), "/data", **{"quiet": False} | options)


def test_places() -> None:
    assert parse_place("web:/etc/app.conf") == Remote(Named("web"), "/etc/app.conf")
    assert parse_place("shop/web/2:data/.") == Remote(Named("shop/web", "2"), "data/.")
    assert parse_place("web:a:b") == Remote(Named("web"), "a:b")
    for local in ("-", ".", "./web:x", "/tmp/a:b", "../a:b", "plain"):
        assert parse_place(local) == local
    for word in ("", "web:", ":/etc", "a/b/c/d:/x"):
        with pytest.raises(UsageError):
            parse_place(word)


def test_sizes() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 5 * 2**30, 2**45)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 GiB",
        "32.0 TiB",
    ]


async def test_progress_is_painted_in_place_and_taken_away() -> None:
    screen = Screen()
    with shown(screen) as progress:
        for size in range(0, 10**6, 10**5):
            progress.progress(size)
    assert screen.getvalue() == "\r/data  0 B\x1b[K\r\x1b[K", "not more often than an eye can see"
    assert progress.outcome(Copied("web/0", 2, 10**6)) == 0
    assert screen.getvalue().endswith("copied 2 files, 976.6 KiB (web/0)\n")


async def test_nothing_is_shown_on_a_pipe_or_when_told_so() -> None:
    for stream, quiet in ((io.StringIO(), False), (Screen(), True)):
        with shown(stream, quiet=quiet) as progress:
            progress.progress(5)
        assert progress.outcome(Copied("web/0", 1, 5)) == 0
        assert stream.getvalue() == ""


def test_what_was_left_out_is_named_and_cannot_paint() -> None:
    stream = io.StringIO()
    left_out = tuple(LeftOut(f"\x1b[2J{number}", "is a device") for number in range(1000))
    assert shown(stream).outcome(Copied("web/0", 1, 5, left_out, 5000)) == 1
    lines = stream.getvalue().splitlines()
    assert lines[0] == "left out: \\x1b[2J0: is a device"
    assert lines[-1] == f"left out: {5000 - MAX_SHOWN} more"
    assert len(lines) == MAX_SHOWN + 1
