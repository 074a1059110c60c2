"""What reset takes away of control groups; the rest of it is tested on real parts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


def test_a_folder_goes_though_others_remove_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    for name in ("a/one", "b/two", "c/three"):
        (folder / name).mkdir(parents=True)
    unhurried, gone = os.rmdir, []

    def raced(path: str, **options: int) -> None:
        unhurried(path, **options)
        gone.append(path)
        raise FileNotFoundError(2, "somebody else was faster", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", lambda path, **options: (unhurried if gone else raced)(path, **options))
        assert reset._remove_folder(folder) == [str(folder)]
    assert len(gone) == 1
    assert not folder.exists()
    assert reset._remove_folder(folder) == []
