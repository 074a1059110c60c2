"""``logs -f`` at a person's terminal, of programs that write lines bit by bit: looked at through tmux."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from tests.integration.program.served import Served
from tests.integration.program.test_lifecycle import manifest
from tests.integration.program.test_terminal import Screen

#: Asks, and goes on when there is a file.
ASKS = """
for step in 1 2 3; do
  printf 'step %s? ' $step
  until [ -e /tmp/$step ]; do sleep 0.05; done
  echo yes
done
printf '\\033[31mcaf\\303'; sleep 1; printf '\\251 \\033'; sleep 1; printf '[2Jsafe\\033[0m\\n'
exec sleep 100000
"""
PROGRESS = """
for part in 10 20 30 40; do printf '%s%%\\r' $part; sleep 0.5; done
printf '100%%\\r\\n'
exec sleep 100000
"""
LEAVES = '; echo "left with $?"; exec sleep 1000'


@pytest.fixture(scope="module")
def asks(serve: Callable[..., Served]) -> Served:
    return serve(name="logterminal")


@pytest.fixture
def screen(asks: Served) -> Iterator[Callable[..., Screen]]:
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    made: list[Screen] = []

    def make(*words: str) -> Screen:
        made.append(Screen(asks, *words, then=LEAVES))
        return made[-1]

    yield make
    for one in made:
        one.close()


def shown(lines: list[str]) -> list[str]:
    """What a person sees, without the lines below."""
    return [line for line in lines if line]


def apply(served: Served, name: str, script: str, replicas: int) -> None:
    text = manifest(name=name, command=["sh", "-c", script], replicas=replicas)
    served.cli("apply", "-f", "-", "-q", stdin=text)


def go(served: Served, replica: str, step: int) -> None:
    served.cli("exec", replica, "--", "touch", f"/tmp/{step}")


def test_a_prompt_and_its_rest_are_one_line(asks: Served, screen: Callable[..., Screen]) -> None:
    apply(asks, "one", ASKS, replicas=1)
    it = screen("logs", "one", "-f", "--no-markers")
    it.until(lambda lines: shown(lines) == ["step 1?"])
    go(asks, "one/0", 1)
    it.until(lambda lines: shown(lines) == ["step 1? yes", "step 2?"])
    it.keys("C-c")
    it.until(lambda lines: shown(lines) == ["step 1? yes", "step 2? ^C", "left with 0"])


def test_two_replicas_share_a_screen(asks: Served, screen: Callable[..., Screen]) -> None:
    apply(asks, "two", ASKS, replicas=2)
    it = screen("logs", "two", "-f", "--no-markers")
    it.until(
        lambda lines: (
            sorted(shown(lines))
            in (["two/0 | step 1?", "two/1 | step 1? …"], ["two/0 | step 1? …", "two/1 | step 1?"])
        )
    )
    go(asks, "two/0", 1)
    it.until(lambda lines: shown(lines)[-1] == "two/0 | step 2?")
    go(asks, "two/0", 2)
    it.until(lambda lines: shown(lines)[-2:] == ["two/0 | step 2? yes", "two/0 | step 3?"])
    go(asks, "two/1", 1)
    lines = it.until(lambda lines: shown(lines)[-1] == "two/1 | step 2?")
    assert shown(lines)[-3:] == ["two/0 | step 3? …", "two/1 | …yes", "two/1 | step 2?"]
    go(asks, "two/0", 3)
    it.until(lambda lines: shown(lines)[-1] == "two/0 | café \\x1b[2Jsafe")


def test_progress(asks: Served, screen: Callable[..., Screen]) -> None:
    apply(asks, "bar", PROGRESS, replicas=1)
    it = screen("logs", "bar", "-f", "--no-markers")
    it.until(lambda lines: shown(lines) == ["10%\\r20%\\r30%\\r40%\\r100%"])


def test_what_is_missing_of_a_line_comes_after_a_gap(serve: Callable[..., Served]) -> None:
    served = serve(name="logaway")
    apply(served, "one", ASKS, replicas=1)
    it = Screen(served, "logs", "one", "-f", "--no-prefix", then=LEAVES)
    try:
        it.until(lambda lines: shown(lines)[-1:] == ["step 1?"])
        served.kill()
        it.until(lambda lines: shown(lines)[1:2] == ["step 1? …"])
        it.until(lambda lines: "waiting for the" in " ".join(shown(lines)[2:]))
        served.start()
        # The coordinator may be back before its node is, which is told below.
        it.until(lambda lines: any(line.endswith("going on where it broke off") for line in shown(lines)))
        go(served, "one/0", 1)
        it.until(lambda lines: shown(lines)[-2:] == ["…yes", "step 2?"])
    finally:
        it.close()


def test_limits_and_old_lines(asks: Served, screen: Callable[..., Screen]) -> None:
    apply(asks, "one", ASKS, replicas=1)
    go(asks, "one/0", 1)
    it = screen("logs", "one", "-f", "--tail", "1", "--no-markers")
    it.until(lambda lines: shown(lines) == ["step 2?"])
    it = screen("logs", "one", "-f", "--limit-bytes", "20")
    it.until(lambda lines: shown(lines)[-1:] == ["left with 0"])
    it = screen("logs", "one", "-f", "-t", "--prefix", "--no-markers")
    it.until(lambda lines: shown(lines)[-1:] and shown(lines)[-1].endswith("Z step 2?"))
