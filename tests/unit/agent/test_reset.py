"""What reset takes away of control groups; the rest of it is tested on real parts."""

from __future__ import annotations

from pathlib import Path

from cloudless.agent import reset


def test_empty_groups_go_but_not_one_that_an_exec_is_about_to_fill(tmp_path: Path) -> None:
    ours = tmp_path / "freezer" / "cloudless" / "node-1" / "cl-a-0"
    theirs = tmp_path / "freezer" / "cloudless" / "node-2" / "cl-b-0" / "x-1"
    for group in (ours, theirs, tmp_path / "memory" / "cloudless" / "node-1"):
        group.mkdir(parents=True)
    assert reset._remove_cgroups(tmp_path) == ["control groups"]
    assert not ours.parent.exists()
    assert theirs.exists()
    assert not (tmp_path / "memory" / "cloudless").exists()
