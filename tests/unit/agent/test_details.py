"""Small parts: configuration, identity, permissions, folders of the node, what is found by name."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.unit.agent.world import spec

from cloudless.agent.config import AgentConfig, default_node_name
from cloudless.agent.identity import DataDirTaken, load_identity, locked, stored_node_id
from cloudless.agent.journal import Journal
from cloudless.agent.lookup import find
from cloudless.agent.replica.process import exit_status, stop_signal
from cloudless.agent.replica.volumes import open_folder
from cloudless.agent.resources import read_disk, read_memory_bytes
from cloudless.agent.runtime.errors import NotEnforced
from cloudless.aio.clock import ManualClock
from cloudless.domain.errors import Fatal, Invalid, NotFound

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        {"containerd": "somewhere"},
        {"agent_address": "9092"},
        {"agent_address": "127.0.0.1:99999"},
        {"network_range": "10.0.0.0/99"},
        {"host_paths": ("relative",)},
        {"images": {"high_percent": 50, "low_percent": 60}},
        {"unknown": 1},
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AgentConfig.model_validate({"data_dir": tmp_path, **wrong})


def test_settings_survive_json(tmp_path: Path) -> None:
    config = AgentConfig(data_dir=tmp_path, labels={"a": "b"}, host_paths=("/srv",))
    assert AgentConfig.model_validate_json(config.model_dump_json()) == config
    assert AgentConfig(data_dir=tmp_path, node_name=default_node_name()).node_name


def test_the_id_stays_and_versions_rise_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    ids = iter(["first", "second"])
    lives = [
        load_identity(tmp_path, ManualClock(START - datetime.timedelta(hours=hours)), lambda: next(ids))
        for hours in range(4)
    ]
    assert {life.node_id for life in lives} == {"first"}
    versions = [life.first_version for life in lives]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("damage", [None, b"", b"\x00\xff", b"[]", b'{"id": "x"}'])
def test_a_lost_identity_is_found_in_the_journal(tmp_path: Path, damage: bytes | None) -> None:
    clock = ManualClock(START)
    for _ in range(20):
        before = load_identity(tmp_path, clock, lambda: "mine")
    Journal.open(tmp_path / "journal", before.node_id).close()
    path = tmp_path / "node.json"
    path.unlink() if damage is None else path.write_bytes(damage)
    assert stored_node_id(tmp_path) == "mine"
    after = load_identity(tmp_path, clock, lambda: "another")
    assert after.node_id == "mine"
    assert after.first_version > before.first_version + (1 << 32), "what it says is newer than all before"
    assert load_identity(tmp_path, clock, lambda: "another").node_id == "mine"


def test_a_journal_that_does_not_say_whose_it_is_gives_no_identity(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'00000000 {"format":1,"node_id":"forged"}\n')
    assert stored_node_id(tmp_path) == ""
    assert load_identity(tmp_path, ManualClock(START), lambda: "new").node_id == "new"


def test_an_unreadable_identity_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("{")
    with pytest.raises(Fatal, match="identity"):
        load_identity(tmp_path, ManualClock(START), lambda: "x")


def test_a_data_directory_is_used_once(tmp_path: Path) -> None:
    with locked(tmp_path / "agent"), pytest.raises(DataDirTaken), locked(tmp_path / "agent"):
        raise AssertionError
    with locked(tmp_path / "agent"):
        pass


def test_a_folder_is_reached_without_links(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "prefix").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "out").symlink_to("/etc")
    (tmp_path / "real" / "here").symlink_to("inner")
    import os

    for path, prefix in (("real/inner", "real"), ("real", "real"), ("prefix/inner", "prefix")):
        handle = open_folder(f"{tmp_path}/{path}", f"{tmp_path}/{prefix}")
        assert os.path.samestat(os.fstat(handle), os.stat(tmp_path / path))
        os.close(handle)
    for path in ("real/out", "real/out/ssl", "real/here", "real/file"):
        with pytest.raises(NotEnforced, match="symbolic link or no folder"):
            open_folder(f"{tmp_path}/{path}", f"{tmp_path}/real")
    with pytest.raises(FileNotFoundError):
        open_folder(f"{tmp_path}/real/none", f"{tmp_path}/real")


def test_finding() -> None:
    containers = ["cl-abc-1", "cl-abc-12", "cl-abd-1"]
    everything = {"containers": containers, "replicas": ["abc", "abd"]}
    assert find(container_id="cl-abc-1", replica="", **everything).attempt == 1
    assert find(container_id="cl-abd", replica="", **everything).replica_id == "abd"
    for wrong, error in (("cl-ab", Invalid), ("cl-abc-", Invalid), ("x", NotFound)):
        with pytest.raises(error):
            find(container_id=wrong, replica="", **everything)
    with pytest.raises(Invalid):
        find(container_id="", replica="", **everything)


def test_signals_and_codes() -> None:
    assert stop_signal(spec(stop_signal="SIGINT"), "SIGQUIT") == 2
    assert stop_signal(spec(), "RTMIN+3") == 37
    assert [exit_status(code, START, oom_killed=False).signal for code in (0, 127, 128, 129, 143, 255)] == [
        0, 0, 0, 1, 15, 0,
    ]  # fmt: skip
    assert exit_status(None, START, oom_killed=False).reason == "Lost"
    assert exit_status(0, START, oom_killed=True).reason == "Completed"


def test_the_machine_is_read(tmp_path: Path) -> None:
    assert read_memory_bytes() > 1 << 20
    assert read_memory_bytes(tmp_path / "none") == 0
    disk = read_disk(tmp_path)
    assert 0 <= disk.space_percent <= 100
    assert disk.total_bytes > 0
