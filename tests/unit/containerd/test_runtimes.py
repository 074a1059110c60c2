from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from cloudless.api.containerd.runc.v1 import Options
from cloudless.containerd import runtimes
from cloudless.containerd.execgroups import Hierarchy
from cloudless.containerd.runtimes import RUNC, Missing, Runtime, probe


def test_a_node_with_nothing(tmp_path: pathlib.Path) -> None:
    found = probe(tmp_path, which=lambda name: None)
    assert all(isinstance(one, Missing) for one in found.values())
    assert not list(tmp_path.iterdir())


def test_a_node_with_everything(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "HYBRID_CGROUP", tmp_path / "no mount")
    found = probe(tmp_path / "wrappers", which=lambda name: f"/opt/{name}")
    assert found["runc"] == Runtime("runc", binary=str(tmp_path / "wrappers" / "runc"))
    assert found["crun"] == Runtime("crun", binary="/opt/crun")
    wrapper = tmp_path / "wrappers" / "runsc"
    assert found["runsc"] == Runtime("runsc", binary=str(wrapper))
    assert wrapper.stat().st_mode & 0o777 == 0o755
    assert 'exec /opt/runsc --network=host "$@"' in wrapper.read_text()


def test_the_shim_is_told_the_binary() -> None:
    assert RUNC.options() is None
    options = Runtime("crun", binary="/opt/crun").options()
    assert options is not None
    assert options.type_url == "containerd.runc.v1.Options"
    assert Options.parse(options.value).binary_name == "/opt/crun"


@pytest.fixture
def wrapped(tmp_path: pathlib.Path) -> pathlib.Path:
    """A wrapper around a runc that tells what it was called with and what it could read."""
    runc = tmp_path / "real runc"
    runc.write_text('#!/bin/sh\nprintf "<%s>" "$@"\nread -r line && echo "got $line"\nexit 0\n')
    runc.chmod(0o755)
    groups = Hierarchy(tmp_path / "freezer", "freezer")
    found = probe(tmp_path / "a folder", which=lambda name: str(runc), groups=groups)["runc"]
    assert isinstance(found, Runtime)
    return pathlib.Path(found.binary)


def call(program: pathlib.Path, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, stdin=subprocess.DEVNULL, check=True)
    return done.stdout.decode()


EXEC = ("--root", "/run", "exec", "--process", "/tmp/p 1", "--detach", "--pid-file", "/b/c/x-12.pid", "c")


def test_an_executed_process_gets_the_group_of_its_id(wrapped: pathlib.Path) -> None:
    said = call(wrapped, *EXEC)
    assert said == (
        "<--root></run><exec><--cgroup><freezer:x-12><--process></tmp/p 1>"
        "<--detach><--pid-file></b/c/x-12.pid><c>"
    )


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "--pid-file", "/b/c/other.pid", "c"),
        ("create", "--bundle", "/b/x-1/c", "--pid-file", "/b/x-1/c/init.pid", "c"),
        ("--log", "/l o g", "delete", "--force", "c"),
    ],
)
def test_all_else_passes_unchanged(wrapped: pathlib.Path, words: tuple[str, ...]) -> None:
    assert call(wrapped, *words) == "".join(f"<{word}>" for word in words)


def test_a_container_reads_from_the_pipe_that_waits_for_it(wrapped: pathlib.Path) -> None:
    pipe = wrapped.parent / "inputs" / "c 1"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        os.write(writer, b"hello\n")
        assert call(wrapped, "create", "--bundle", "/b", "c 1").endswith("got hello\n")
        assert "got" not in call(wrapped, "start", "c 1")
    finally:
        os.close(writer)
