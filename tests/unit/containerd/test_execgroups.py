from __future__ import annotations

import pathlib

from cloudless.containerd.execgroups import ExecGroup, Hierarchy, find_hierarchy


def test_the_freezer_is_used_where_both_versions_are_mixed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "freezer").mkdir()
    (tmp_path / "unified").mkdir()
    found = find_hierarchy(tmp_path)
    assert found == Hierarchy(tmp_path / "freezer", "freezer")
    assert found.argument == "freezer:"


def test_version_two_has_one_hierarchy(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cgroup.controllers").touch()
    found = find_hierarchy(tmp_path)
    assert found == Hierarchy(tmp_path, "")
    assert found.argument == ""


def test_without_control_groups(tmp_path: pathlib.Path) -> None:
    assert find_hierarchy(tmp_path) is None
    assert ExecGroup.of(None, "/c", "x-1") is None


def test_a_group_lies_below_its_container(tmp_path: pathlib.Path) -> None:
    hierarchy = Hierarchy(tmp_path, "")
    group = ExecGroup.of(hierarchy, "/cloudless/n/c", "x-1")
    assert group is not None
    assert group.path == tmp_path / "cloudless/n/c/x-1"
    assert ExecGroup.of(hierarchy, "/cloudless/n/c", "probe") is None
    assert ExecGroup.of(hierarchy, "", "x-1") is None


def test_a_group_that_is_gone_holds_nothing(tmp_path: pathlib.Path) -> None:
    group = ExecGroup(tmp_path / "gone")
    assert group.pids() == ()
    assert group.remove()
    group.kill()
    group.adopt(1)
