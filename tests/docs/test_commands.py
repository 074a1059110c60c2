"""Every command line in the pages is one that the real parsers take."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import PAGES, ROOT, blocks, cloudless_words

from cloudless.cli.catalog import ALIASES, VERBS
from cloudless.cli.parsing import UsageError, parse
from cloudless.cli.serve_settings import parser as serve_parser
from cloudless.cli.serve_settings import resolve

CALLS = [
    pytest.param(words, id=f"{block.place} {' '.join(words)}")
    for block in blocks("console", "sh")
    for command in block.commands()
    for words in cloudless_words(command)
]
#: `cloudless get -w`, `apply --dry-run`: a verb and more in running text.
INLINE = re.compile(r"`(?:cloudless )([a-z]+)(?: [^`]*)?`")


def test_there_are_commands() -> None:
    assert len(CALLS) >= 15


@pytest.mark.parametrize("words", CALLS)
def test_the_parser_takes_it(words: list[str]) -> None:
    arguments = parse(words)
    if arguments.verb == "serve":
        resolve(arguments.rest, {})
    elif arguments.verb == "reset":
        assert set(arguments.rest[::2]) <= {"--data-dir", "--containerd", "--yes"}


def test_a_wrong_one_is_noticed() -> None:
    with pytest.raises(UsageError):
        parse(["get", "workloads", "--no-such-option"])
    with pytest.raises(UsageError):
        parse(["aply", "-f", "x.yaml"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_verbs_in_running_text_exist(page: object) -> None:
    for verb in INLINE.findall(page.read_text()):  # type: ignore[attr-defined]
        assert verb in VERBS or verb in ALIASES, verb


def test_flags_of_serve_in_running_text_exist() -> None:
    """``--host-path /srv/data`` in operations.md, for example."""
    known = set(serve_parser()._option_string_actions) | {"--yes"}
    text = (ROOT / "docs" / "operations.md").read_text()
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert named - known == set()
