from __future__ import annotations

import dataclasses
import datetime
import os
import stat
import sys
import time
from pathlib import Path

import pytest

from cloudless.agent.logs.capture import install_logger, logger_uri
from cloudless.agent.logs.index import LogAbout
from cloudless.agent.logs.store import LogStore
from cloudless.domain.errors import Invalid
from cloudless.domain.replica import ExitStatus


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


async def test_how_much_is_kept_of_a_log_is_told_to_its_logger(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "logs", tmp_path / "bin", file_bytes=1_000_000, files=7)
    assert store.prepare("web-0", 1).endswith("/web-0/1=1000000-7")
    store.close()


async def test_whose_logs_they_are_is_known_to_the_next_agent(tmp_path: Path) -> None:
    about = LogAbout("r1", "default", "web", 2, "w1", 7)
    for at_ns in (0, 99):
        store = LogStore(tmp_path / "logs", tmp_path / "bin")
        store.prepare("r1", 1, about, started_ns=5)
        store.exited("r1", 1, ExitStatus(code=3, finished_at=datetime.datetime.now(datetime.UTC)))
        if at_ns:
            store.ended("r1", at_ns)
        store.close()
        fresh = LogStore(tmp_path / "logs", tmp_path / "bin")
        assert await fresh.abouts() == {"r1": dataclasses.replace(about, ended_ns=at_ns)}
        run = fresh.known_run("r1", 1)
        assert (run.started_ns, run.exit and run.exit.code) == (5, 3)
        fresh.close()


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"replica_id": "other"}', b'{"replica_id": 1}', b"\xff"]
)
async def test_a_damaged_index_is_as_if_nothing_were_known(tmp_path: Path, text: bytes) -> None:
    store = LogStore(tmp_path / "logs", tmp_path / "bin")
    store.prepare("r1", 1)
    for name in ("about.json", "1/run.json", "1/exit.json"):
        (tmp_path / "logs" / "r1" / name).write_bytes(text)
    assert await store.abouts() == {"r1": LogAbout("r1")}
    run = store.known_run("r1", 1)
    assert (run.started_ns, run.exit) == (0, None)
    store.close()


async def test_the_index_goes_with_the_logs(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "logs", tmp_path / "bin")
    store.prepare("r1", 1, LogAbout("r1", "default", "web"))
    assert set(await store.abouts()) == {"r1"}
    await store.collect({}, time.time() + 10, max_age_s=1)
    assert set(await store.abouts()) == set()
    assert not (tmp_path / "logs" / "r1").exists()
    store.close()
