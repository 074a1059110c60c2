"""Files to and from real replicas; replicas that are hostile, images that lack tar."""

from __future__ import annotations

import hashlib
import os
import pathlib
import random
import signal
import subprocess
from typing import Any

import pytest
from tests.integration.containerd import imagebuild
from tests.integration.program.served import Result, Served, command, environment, run_cli, until
from tests.integration.program.test_lifecycle import manifest
from tests.unit.sdk.copying.archives import archive, entry, link

MIB = 1024 * 1024
DATA = (
    "mkdir -p /data/sub; echo conf >/data/app.conf; chmod 640 /data/app.conf; echo x >/data/sub/f; "
    "ln -s app.conf /data/l; ln -s /etc/passwd /data/out; mkfifo /data/pipe; exec sleep 1000"
)
TARLESS = "docker.io/library/tarless:1"


def start(served: Served, **fields: Any) -> None:
    fields.setdefault("command", ["sh", "-c", DATA])
    served.cli("apply", "-f", "-", "-q", stdin=manifest(name="web", **fields))


def cp(served: Served, *words: object, code: int = 0, **options: Any) -> Result:
    return served.cli("cp", *map(str, words), code=code, **options)


def sh(served: Served, line: str, name: str = "web") -> str:
    return served.cli("exec", name, "--", "sh", "-c", line).out


def test_down(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy)
    sh(tidy, "touch -d '2020-02-02 02:02:02' /data/app.conf")
    cp(tidy, "web:/data/app.conf", tmp_path)
    made = tmp_path / "app.conf"
    assert (made.read_text(), made.stat().st_mode & 0o777) == ("conf\n", 0o640)
    assert int(sh(tidy, "stat -c %Y /data/app.conf")) == int(made.stat().st_mtime)
    result = cp(tidy, "web/0:/data", tmp_path / "copy", code=1)
    assert set(result.err.splitlines()) == {
        "left out: ./data/out: is a link that leads out, to /etc/passwd",
        "left out: ./data/pipe: is a named pipe",
    }
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["app.conf", "l", "sub"]
    assert (tmp_path / "copy" / "l").is_symlink()
    assert "does not exist" in cp(tidy, "web:/nope", tmp_path, code=5).err
    assert cp(tidy, "wbe:/data", tmp_path, code=5).err.count("did you mean 'web'?") == 1


def test_up(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy, replicas=2)
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "run").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "d" / "e" / "run").chmod(0o755)
    cp(tidy, tmp_path / "d", "web:/srv")
    assert sh(tidy, "/srv/e/run") == "ran\n"
    cp(tidy, tmp_path / "d" / "e" / "run", "web:/data/", "--replica", "1")
    assert tidy.cli("exec", "web", "--replica", "1", "--", "ls", "/data").out.split()[-2:] == ["run", "sub"]
    assert "run" not in sh(tidy, "ls /data"), "the other replica has none of it"
    assert "there is no folder" in cp(tidy, tmp_path / "d" / "e" / "run", "web:/nope/", code=5).err
    assert "cloudless" not in sh(tidy, "ls -a / /data /srv")


def test_archives(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy)
    process = subprocess.run(
        command("cp", "web:/data/sub", "-"),
        capture_output=True,
        env=environment(CLOUDLESS_ADDRESS=tidy.address),
        timeout=60,
        check=True,
    )
    listed = subprocess.run(["tar", "t"], input=process.stdout, capture_output=True, check=True).stdout
    assert listed.split() == [b"./sub/", b"./sub/f"]
    sh(tidy, "mkdir /again")
    cp(tidy, "-", "web:/again", stdin=process.stdout)
    assert sh(tidy, "cat /again/sub/f") == "x\n"
    assert cp(tidy, "-", "web:/nope", stdin=process.stdout, code=5).err


def test_many_bytes_arrive_as_they_were(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy)
    data = random.Random(1).randbytes(MIB) * 64
    (tmp_path / "big").write_bytes(data)
    cp(tidy, tmp_path / "big", "web:/data/big")
    assert sh(tidy, "sha256sum </data/big").split()[0] == hashlib.sha256(data).hexdigest()
    cp(tidy, "web:/data/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    refused = cp(tidy, "web:/data/big", tmp_path / "refused", "--max-size", "1Mi", code=1)
    assert "more than 1048576 bytes" in refused.err
    assert not (tmp_path / "refused").exists()


def test_an_upload_that_is_interrupted_leaves_nothing(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(20 * 1024 * MIB)
    process = subprocess.Popen(
        command("cp", str(tmp_path / "huge"), "web:/data/app.conf"),
        env=environment(CLOUDLESS_ADDRESS=tidy.address),
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: ".cloudless-cp-" in sh(tidy, "ls -a /data"), "it is under way")
        assert sh(tidy, "cat /data/app.conf") == "conf\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
    until(lambda: ".cloudless-cp-" not in sh(tidy, "ls -a /data"), "nothing is left of it")
    assert sh(tidy, "cat /data/app.conf") == "conf\n"
    until(lambda: "tar" not in sh(tidy, "ps -o comm").split(), "nobody unpacks it any more")


def test_a_hostile_replica_writes_nowhere_else(tidy: Served, tmp_path: pathlib.Path) -> None:
    """Its tar is a program of the attacker's."""
    start(tidy)
    evil = archive(
        entry("./app.conf", b"good"),
        entry("../escaped", b"evil"),
        entry(f"{tmp_path}/absolute", b"evil"),
        link("./app.conf/..", "/"),
        link("./x", ".."),
        entry("./x/through", b"evil"),
        entry("./.bashrc", b"evil"),
    )
    (tmp_path / "evil.tar").write_bytes(evil)
    (tmp_path / "tar").write_text("#!/bin/sh\ncat /evil.tar\n")
    (tmp_path / "tar").chmod(0o755)
    (tmp_path / "here").mkdir()
    cp(tidy, tmp_path / "evil.tar", "web:/evil.tar")
    cp(tidy, tmp_path / "tar", "web:/bin/tar")
    before = sorted(path.name for path in tmp_path.iterdir())
    result = cp(tidy, "web:/data/app.conf", tmp_path / "here", code=1)
    assert result.err.count("left out:") == 6
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["app.conf"]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_image_without_tar(tidy: Served, tmp_path: pathlib.Path) -> None:
    layer = imagebuild.busybox_layer(["sh", "sleep"])
    image = imagebuild.docker_archive(tmp_path / "tarless.tar", TARLESS, [layer])
    tidy.cli("image", "import", str(image))
    start(tidy, image=TARLESS, command=["sleep", "1000"])
    for words in (("web:/etc/passwd", tmp_path), (tmp_path / "tarless.tar", "web:/tmp")):
        result = cp(tidy, *words, code=1)
        assert "cannot copy" in result.err
        assert "copying needs the programs tar, mv and rm in the image" in result.err
        assert "CL-6202" in result.err


def test_a_replica_that_does_not_run(tidy: Served, tmp_path: pathlib.Path) -> None:
    start(tidy, replicas=0)
    result = cp(tidy, "web:/etc/passwd", tmp_path, code=1)
    assert "replica" in result.err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ("a", "b"),
        ("web:/a", "web:/b"),
        ("web:", "."),
        (":/a", "."),
        ("web/0:/a", ".", "--replica", "1"),
        ("x", "web:/a", "--max-size", "1"),
        ("web:/a", ".", "--max-size", "lots"),
        ("web:/a",),
    ],
)
def test_command_lines_that_make_no_sense(words: tuple[str, ...]) -> None:
    assert run_cli("cp", *words, address="127.0.0.1:1").code == 2
