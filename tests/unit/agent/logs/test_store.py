from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from cloudless.agent.logs.capture import install_logger, logger_uri
from cloudless.agent.logs.store import LogStore
from cloudless.domain.errors import Invalid


@pytest.fixture
def store(tmp_path: Path) -> LogStore:
    return LogStore(tmp_path / "logs", tmp_path / "bin")


def filled(store: LogStore, replica: str, attempt: int, *, size: int = 100, written_s: float = 0) -> Path:
    directory = store.directory(replica, attempt)
    directory.mkdir(parents=True)
    file = directory / "0000000001-0000000000000000.log"
    file.write_bytes(b"x" * size)
    for path in (file, directory):
        os.utime(path, (written_s, written_s))
    return directory


def test_prepare_makes_the_directory_and_the_program(store: LogStore, tmp_path: Path) -> None:
    uri = store.prepare("web-0", 2)
    assert (tmp_path / "logs" / "web-0" / "2").is_dir()
    (program,) = (tmp_path / "bin").iterdir()
    assert uri == f"binary://{program}?{tmp_path}/logs/web-0/2=10485760-5"
    assert store.prepare("web-0", 2) == uri
    assert store.attempts("web-0") == (2,)
    assert store.attempts("unknown") == ()


def test_the_program_runs_without_site_packages(tmp_path: Path) -> None:
    program = install_logger(tmp_path)
    assert program.read_text().splitlines()[0] == f"#!{os.path.realpath(sys.executable)} -IS"
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert install_logger(tmp_path) == program


def test_an_odd_interpreter_falls_back(tmp_path: Path) -> None:
    program = install_logger(tmp_path, "/opt/my python/bin/python")
    assert program.read_text().startswith("#!/usr/bin/python3 -IS\n")


def test_odd_directories_are_quoted() -> None:
    assert logger_uri(Path("/p"), Path("/a&b=c d")).startswith("binary:///p?/a%26b%3Dc%20d=")


@pytest.mark.parametrize("bad", ["", "..", "../x", "a/b", ".hidden", "x" * 129])
def test_bad_ids_are_refused(store: LogStore, bad: str) -> None:
    with pytest.raises(Invalid):
        store.directory(bad, 0)
    with pytest.raises(Invalid):
        store.directory("web", -1)


async def test_old_logs_of_the_dead_go(store: LogStore) -> None:
    old, new = filled(store, "old", 0, written_s=10), filled(store, "new", 0, written_s=90)
    living = filled(store, "living", 0, written_s=10)
    assert await store.collect({"living": 0}, 100, max_age_s=50) == 1
    assert not old.parent.exists()
    assert new.exists()
    assert living.exists()


async def test_the_oldest_go_when_it_is_too_much(store: LogStore) -> None:
    made = [filled(store, f"r{i}", 0, size=100, written_s=i) for i in range(5)]
    assert await store.collect({}, 100, max_age_s=1000, max_bytes=250) == 3
    assert [path.exists() for path in made] == [False, False, False, True, True]


async def test_earlier_attempts_of_the_living_go_but_not_the_last_one(store: LogStore) -> None:
    made = [filled(store, "web", attempt) for attempt in range(4)]
    assert await store.collect({"web": 3}, 1e6, max_age_s=1) == 2
    assert [path.exists() for path in made] == [False, False, True, True]


async def test_collecting_follows_no_links(store: LogStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious" / "0"
    precious.mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "link").symlink_to(tmp_path / "precious")
    assert await store.collect({}, 1e12, max_bytes=0) == 0
    assert precious.exists()


async def test_remove(store: LogStore) -> None:
    directory = filled(store, "web", 0)
    await store.remove("web")
    await store.remove("web")
    assert not directory.parent.exists()
