"""``cloudless serve`` where it cannot: a reason and what to try, and nothing is left behind."""

from __future__ import annotations

import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from tests.integration.conftest import need_containerd
from tests.integration.program.census import leftovers
from tests.integration.program.served import Result, Served, run_cli, until
from tests.integration.program.test_lifecycle import manifest


@pytest.fixture
def unstarted() -> Iterator[Served]:
    need_containerd()
    parent = pathlib.Path(tempfile.mkdtemp(prefix="cls-"))
    parent.chmod(0o755)
    made = Served(parent / "data")
    yield made
    if (made.data_dir / "agent" / "node.json").exists():
        node_id = made.node_id
        made.end()
        assert not leftovers(made.data_dir, node_id)
    shutil.rmtree(parent)


def refused(served: Served, *more: str, prefix: tuple[str, ...] = (), **changes: str) -> Result:
    result = run_cli("serve", *served.flags, *more, prefix=prefix, limit_s=30, **changes)
    assert result.code not in (0, 130), result
    assert "error" in result.err
    return result


@pytest.mark.parametrize("which", ["--api-address", "--http-address", "--agent-address"])
def test_a_port_that_is_taken(unstarted: Served, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = refused(unstarted, which, address)
    assert address in result.said
    assert "in use" in result.said or "taken" in result.said


def test_an_address_for_everybody_is_refused_without_tls(unstarted: Served) -> None:
    assert "without TLS" in refused(unstarted, "--api-address", "0.0.0.0:0").said


def test_no_containerd(unstarted: Served, tmp_path: pathlib.Path) -> None:
    assert "containerd" in refused(unstarted, PATH=str(tmp_path)).said


def test_a_containerd_that_comes_late(unstarted: Served, program: Served, tmp_path: pathlib.Path) -> None:
    """It may be started after us: it is waited for, and said so."""
    late = tmp_path / "late.sock"
    unstarted.flags += ["--containerd", str(late)]
    unstarted.containerd = str(late)
    unstarted.start(ready=False)
    until(lambda: f'"socket": "{late}"' in unstarted.log.read_text(), "it says what it waits for")
    assert unstarted.http("/readyz")[0] in (0, 503)
    late.symlink_to(program.socket)
    unstarted.until_ready()


def test_not_root(unstarted: Served) -> None:
    program = shutil.which("setpriv")
    if program is None:
        pytest.skip("needs setpriv")
    unstarted.data_dir.mkdir()
    unstarted.data_dir.chmod(0o777)
    prefix = (program, "--reuid=65534", "--regid=65534", "--clear-groups")
    said = refused(unstarted, prefix=prefix).said
    assert "root" in said
    shutil.rmtree(unstarted.data_dir)


def test_a_second_one_on_the_same_folder(program: Served) -> None:
    second = Served(program.data_dir)
    result = run_cli("serve", *second.flags, limit_s=30)
    assert result.code not in (0, 130)
    assert str(program.data_dir) in result.said
    assert program.http("/readyz")[0] == 200


def test_reset_while_it_runs_is_refused(program: Served) -> None:
    result = run_cli("reset", "--data-dir", str(program.data_dir), "--containerd", "private", "--yes")
    assert result.code != 0
    assert program.http("/readyz")[0] == 200


def test_bad_settings(unstarted: Served) -> None:
    for flag, value in (
        ("--api-address", "nonsense"),
        ("--store", "mysql://x"),
        ("--node-name", "../x"),
        ("--network-pool", "10.0.0.0/33"),
        ("--label", "novalue"),
    ):
        said = refused(unstarted, flag, value).said
        assert flag in said or flag[2:].replace("-", "_") in said, said


def goes_on(served: Served, name: str) -> bool:
    """Whether a workload is applied and runs. A change is never refused; but a node that looked at
    its disk while that was full takes nothing until it looks again.
    """
    result = served.cli("apply", "-f", "-", stdin=manifest(name=name), code=None)
    assert result.code in (0, 4), result
    return result.code == 0


def test_a_disk_that_is_full(unstarted: Served, image_archive: pathlib.Path) -> None:
    """Changes are refused while nothing can be kept, and go on when there is space again."""
    unstarted.data_dir.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", str(unstarted.data_dir)], check=True)
    try:
        unstarted.start()
        unstarted.cli("image", "import", str(image_archive))
        unstarted.cli("apply", "-f", "-", stdin=manifest(name="first"))
        filler = unstarted.data_dir / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
                    file.flush()
            except OSError:
                pass
        result = unstarted.cli("apply", "-f", "-", "--no-wait", stdin=manifest(name="second"), code=None)
        assert result.code != 0
        assert "space" in result.err or "full" in result.err, result.err
        assert len(unstarted.running()) == 1
        filler.unlink()
        until(lambda: goes_on(unstarted, "second"), "there is space again", 60)
        unstarted.cli("delete", "first", "second", "--wait")
        unstarted.end()
        assert not list(unstarted.data_dir.iterdir())
    finally:
        unstarted.kill()
        subprocess.run(["umount", "-l", str(unstarted.data_dir)], check=False)
        unstarted.data_dir.rmdir()
