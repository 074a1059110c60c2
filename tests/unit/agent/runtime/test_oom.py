"""The kernel's own count of kills, in both layouts of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudless.agent.runtime.oom import group_of, killed_for_memory


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("memory/cloudless/n/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", True),
        ("memory/cloudless/n/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("cloudless/n/c/memory.events", "low 0\nmax 9\noom 1\noom_kill 1\n", True),
        ("cloudless/n/c/memory.events", "low 0\nmax 9\noom 1\noom_kill 0\n", False),
        ("cloudless/n/other/memory.events", "oom_kill 1\n", False),
    ],
)
def test_the_counter_is_found(tmp_path: Path, path: str, text: str, expected: bool) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert killed_for_memory(group_of("n", "c"), tmp_path) is expected
