from __future__ import annotations

import pytest

from cloudless.cli.parsing import UsageError, parse


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["get", "-o", "wide", "workloads", "web"], ["workloads", "web"]),
        (["get", "workloads", "-o", "wide", "web"], ["workloads", "web"]),
        (["get", "workloads", "web", "-o", "wide"], ["workloads", "web"]),
    ],
)
def test_options_may_stand_anywhere(words: list[str], names: list[str]) -> None:
    found = parse(words)
    assert (found.words, found.output) == (names, "wide")


def test_an_option_between_a_subverb_and_its_file() -> None:
    found = parse(["image", "import", "--agent-address", "127.0.0.1:1", "web.tar"])
    assert (found.action, found.words, found.agent_address) == ("import", ["web.tar"], "127.0.0.1:1")


def test_what_is_unknown_is_named() -> None:
    with pytest.raises(UsageError, match="unknown option '--wides'"):
        parse(["get", "workloads", "--wides"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["logs", "web", "--since", "-5m"], "argument --since needs a value"),
        (["logs", "web", "--follow=true"], "argument -f/--follow takes no value, and 'true' was given"),
        (["attach", "web", "--tail", "x"], "argument --tail: 'x' is not a whole number"),
    ],
)
def test_the_wording_is_not_that_of_a_library(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert caught.value.message == said
