from __future__ import annotations

import asyncio
import datetime
import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.agent.world import assignment

from cloudless.agent import journal as module
from cloudless.agent.journal import Journal, Progress
from cloudless.domain.replica import Assignment, ExitStatus, ReplicaPhase
from cloudless.domain.rollout import TrafficShare

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def opened(path: Path, node: str = "n1") -> Journal:
    return Journal.open(path, node)


def told(
    journal: Journal,
    *assignments: Assignment,
    whole: bool = False,
    removed: tuple[str, ...] = (),
    traffic: dict[str, tuple[TrafficShare, ...]] | None = None,
) -> None:
    journal.tell(epoch=3, whole=whole, assignments=assignments, removed=removed, traffic=traffic)


BLUE = (TrafficShare(revision=1, percent=100), TrafficShare(revision=2, percent=0))
GREEN = (TrafficShare(revision=2, percent=100),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent" / "journal"


def test_everything_comes_back(path: Path) -> None:
    rich = assignment(
        "a",
        env={"A": "1"},
        ports=[{"container_port": 80}],
        pull_secrets=[{"server": "r", "username": "u", "password": "p"}],
        readiness_probe={"http": {"port": 80}},
        rollout={"strategy": "RECREATE"},
    )
    exit_status = ExitStatus(code=137, signal=9, oom_killed=True, finished_at=NOW, log_tail="x\ny")
    progress = Progress(
        replica_id="a", attempt=4, restarts=3, last_exit=exit_status, ended=ReplicaPhase.FAILED
    )
    first = opened(path)
    told(first, rich, assignment("b"), assignment("c"))
    told(first, removed=("b",))
    first.note(progress)
    for _ in range(2):  # the second reads what the first wrote anew
        first.close()
        first = opened(path)
        assert first.assignments == {"a": rich, "c": assignment("c")}
        assert (first.doomed, first.epoch, first.damage) == ({"b": assignment("b")}, 3, "")
        assert first.progress == {"a": progress}
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_whole_message_dooms_what_it_does_not_name_and_the_gone_are_forgotten(path: Path) -> None:
    journal = opened(path)
    told(journal, assignment("a"), assignment("b"))
    journal.note(Progress(replica_id="a", attempt=1))
    told(journal, assignment("b"), whole=True)
    assert (set(journal.assignments), set(journal.doomed), set(journal.progress)) == ({"b"}, {"a"}, {"a"})
    journal.forget("a")
    journal.forget("never-heard-of")
    journal.close()
    again = opened(path)
    assert (set(again.assignments), again.doomed, again.progress) == ({"b"}, {}, {})
    again.close()


def test_shares_come_back_and_are_forgotten_when_told(path: Path) -> None:
    journal = opened(path)
    told(journal, traffic={"w1": BLUE, "w2": GREEN, "w3": BLUE})
    told(journal, traffic={"w1": GREEN, "w2": (), "w4": ()})
    for _ in range(2):  # the second reads what the first wrote anew
        journal.close()
        journal = opened(path)
        assert journal.traffic == {"w1": GREEN, "w3": BLUE}
    told(journal, whole=True, traffic={"w3": BLUE})
    journal.close()
    again = opened(path)
    assert (again.traffic, again.damage) == ({"w3": BLUE}, "")
    again.close()


@pytest.mark.parametrize("lines", range(4))
def test_no_cut_leaves_a_replica_without_the_shares_it_came_with(path: Path, lines: int) -> None:
    journal = opened(path)
    told(journal, assignment("green").replaced(revision=2), traffic={"w1": BLUE})
    journal.close()
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[: 2 + lines]))
    again = opened(path)
    assert not again.assignments or again.traffic == {"w1": BLUE}
    again.close()


def test_what_is_known_already_is_not_written_again(path: Path) -> None:
    journal = opened(path)
    told(journal, assignment("a"), traffic={"w1": BLUE})
    journal.note(Progress(replica_id="a", attempt=1))
    size = path.stat().st_size
    told(journal, assignment("a"), whole=True, traffic={"w1": BLUE, "w2": ()})
    journal.note(Progress(replica_id="a", attempt=1))
    assert path.stat().st_size == size
    journal.close()


def test_another_nodes_journal_is_not_believed(path: Path) -> None:
    journal = opened(path)
    told(journal, assignment("a"))
    journal.close()
    other = opened(path, "n2")
    assert "belongs to another node" in other.damage
    assert other.assignments == {}
    other.close()
    assert [file.name for file in path.parent.glob("*.damaged-*")] == ["journal.damaged-000001"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
@given(position=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_never_passes_for_truth(tmp_path: Path, position: int, bit: int) -> None:
    path = tmp_path / "flipped" / "journal"
    journal = opened(path)
    told(journal, assignment("a"), assignment("b"))
    journal.note(Progress(replica_id="a", attempt=1))
    journal.close()
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << bit
    path.write_bytes(bytes(data))
    again = opened(path)
    if not again.damage:  # only the end of the last line: that line was being written
        assert position % len(data) == len(data) - 1
        assert set(again.assignments) == {"a", "b"}
        assert again.progress == {}
    again.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(cut=st.integers(min_value=0))
def test_a_cut_leaves_a_beginning_or_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut" / "journal"
    journal = opened(path)
    names = ["a", "b", "c"]
    for name in names:
        told(journal, assignment(name))
    journal.close()
    data = path.read_bytes()
    path.write_bytes(data[: cut % len(data)])
    again = opened(path)
    found = list(again.assignments)
    assert found == names[: len(found)]
    assert len(found) < 3
    again.close()


async def test_it_is_written_anew_when_it_has_grown_and_loses_nothing_meanwhile(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPACT_BYTES", 2000)
    journal = opened(path)
    told(journal, assignment("a"))
    for attempt in range(500):
        journal.note(Progress(replica_id="a", attempt=attempt + 1))
    before = path.stat().st_size
    syncing = asyncio.gather(journal.sync(), journal.sync())
    await asyncio.sleep(0)
    told(journal, assignment("late"))
    await syncing
    assert path.stat().st_size < before / 10
    journal.note(Progress(replica_id="late", attempt=1))
    journal.close()
    again = opened(path)
    assert set(again.assignments) == {"a", "late"}
    assert [again.progress[name].attempt for name in ("a", "late")] == [500, 1]
    again.close()


def test_only_some_damaged_ones_are_kept(path: Path) -> None:
    for _ in range(6):
        opened(path).close()
        path.write_bytes(b"nonsense\n")
        opened(path).close()
    assert len(list(path.parent.glob("*.damaged-*"))) == module.KEPT_DAMAGED


class FullDisk:
    """Lets half of a write through, then refuses, while ``full``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = os.write
        monkeypatch.setattr(module.os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not self.full:
            return self._write(fd, data)
        if len(data) > 1:
            return self._write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_ends_nothing_and_tears_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(path)
    journal.tell(epoch=1, whole=True, assignments=[assignment("a")], removed=())
    disk = FullDisk(monkeypatch)
    before = path.read_bytes()
    disk.full = True
    for _ in range(2):
        journal.tell(epoch=2, whole=False, assignments=[assignment("b")], removed=["a"])
        journal.note(Progress(replica_id="b", attempt=1))
        await journal.sync()
    assert (set(journal.assignments), set(journal.doomed), journal.epoch) == ({"b"}, {"a"}, 2)
    assert path.read_bytes() == before, "what was there is still whole"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    fds = len(os.listdir("/proc/self/fd"))
    await journal.sync()
    assert len(os.listdir("/proc/self/fd")) == fds
    disk.full = False
    await journal.sync()
    journal.note(Progress(replica_id="b", attempt=2))
    journal.close()
    again = opened(path)
    assert (again.damage, set(again.assignments), set(again.doomed)) == ("", {"b"}, {"a"})
    assert again.progress["b"].attempt == 2
    again.close()


def test_room_is_noticed_by_the_next_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened(path)
    disk = FullDisk(monkeypatch)
    disk.full = True
    journal.note(Progress(replica_id="a", attempt=1))
    disk.full = False
    journal.note(Progress(replica_id="b", attempt=1))
    journal.close()
    again = opened(path)
    assert set(again.progress) == {"a", "b"}
    again.close()
