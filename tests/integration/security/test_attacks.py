"""Images, specifications and requests of an attacker, against a program that really runs."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pathlib
import stat
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.conftest import open_client
from tests.integration.containerd import imagebuild
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served, processes, until
from tests.integration.security.conftest import tar

CANARY = "canary-8b1f2c"
SLEEP = ["sh", "-c", "sleep 1000"]


def apply(served: Served, name: str, *flags: str, image: str = IMAGE, **fields: Any) -> None:
    spec = {"image": image, "command": SLEEP, "replicas": 1, **fields}
    manifest = json.dumps({"kind": "Workload", "name": name, "spec": spec})
    served.cli("apply", "-f", "-", "-q", *flags, stdin=manifest)


def refused(served: Served, name: str, said: str) -> None:
    """Wait until the workload says this of why it does not run."""
    until(lambda: said in served.cli("describe", "workload", name).out, f"{name} says {said!r}")
    assert not served.running(name)


def sh(served: Served, name: str, line: str) -> str:
    return served.cli("exec", name, "--", "sh", "-c", line).out


# Images.


def test_an_image_cannot_say_whom_a_number_means(attacked: Served, image: Callable[..., str]) -> None:
    accounts = imagebuild.layer(
        {
            "etc/passwd": imagebuild.Entry(b"root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"),
            "etc/group": imagebuild.Entry(b"root:x:0:1000\n"),
        }
    )
    apply(attacked, "numbered", image=image("numbered", accounts), security_context={"run_as_user": 1000})
    assert sh(attacked, "numbered", "id -u").strip() == "1000"


def test_an_image_writes_nothing_into_the_record(attacked: Served, image: Callable[..., str]) -> None:
    forged = {
        "cloudless.io/replica": "forged",
        "containerd.io/restart.status": "running",
        "containerd.io/restart.loguri": "binary:///bin/touch?/tmp/forged",
    }
    env = ["CLOUDLESS_NODE=forged", "PATH=/bin"]
    name = image("labels", Labels=forged, Env=env, Volumes={"/../../../etc": {}}, WorkingDir="../../..")
    apply(attacked, "labels", image=name)
    assert sh(attacked, "labels", "echo $CLOUDLESS_NODE; pwd").split() == ["node-1", "/"]
    (running,) = attacked.until_running("labels", 1)

    async def labels() -> dict[str, str]:
        async with open_client(attacked.socket) as client:
            return dict((await client.containers.get(running.container_id)).labels)

    found = asyncio.run(labels())
    assert all(key.startswith("cloudless.io/") for key in found)
    assert "forged" not in str(found)


@pytest.mark.parametrize(
    ("user", "passwd", "said"),
    [
        ("4294967296", None, "larger than"),
        ("-1", None, "not in the image"),
        ("web", ("etc/passwd", tarfile.FIFOTYPE, ""), "not in the image"),
        ("daemon", ("etc/passwd", tarfile.SYMTYPE, "../../../../../../../../etc/passwd"), "not in the image"),
    ],
)
def test_a_user_that_is_none(
    attacked: Served, image: Callable[..., str], user: str, passwd: tuple[str, bytes, str] | None, said: str
) -> None:
    layers = [tar(passwd)] if passwd is not None else []
    apply(attacked, "user", "--no-wait", image=image("user", *layers, User=user))
    refused(attacked, "user", said)


def test_links_in_an_image_lead_nowhere(
    attacked: Served, image: Callable[..., str], tmp_path: pathlib.Path
) -> None:
    target = tmp_path / "target"
    links = tar(("etc/hostname", tarfile.SYMTYPE, f"../../../../../../..{target}"))
    apply(attacked, "links", image=image("links", links), restart_policy={"policy": "NEVER"})
    assert not target.exists()
    assert sh(attacked, "links", "hostname").strip() == "links-0"


# Specifications.


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"privileged": True}, "privileged"),
        ({"host_network": True}, "host_network"),
        ({"host_pid": True}, "host_pid"),
        ({"capabilities_add": ["DAC_READ_SEARCH"]}, "capabilities_add"),
        ({"capabilities_add": ["NET_RAW"]}, "capabilities_add"),
        ({"seccomp_profile": {"type": "UNCONFINED"}}, "seccomp_profile"),
    ],
)
def test_what_needs_permission_does_not_run(attacked: Served, security: dict[str, Any], said: str) -> None:
    apply(attacked, "rights", "--no-wait", security_context=security)
    refused(attacked, "rights", f"does not allow {said}")


def test_folders_of_the_node(attacked: Served, shared: pathlib.Path) -> None:
    """Neighbours of an allowed name, links in it, the program's own folder, and what holds it."""
    wanted = {
        "neighbour": (f"{shared}-evil", "does not allow"),
        "link": (f"{shared}/link", "symbolic link"),
        "own": (f"{attacked.data_dir}/agent", "the node's own"),
        "parent": (f"{attacked.data_dir.parent}", "the node's own"),
    }
    for name, (path, _) in wanted.items():
        volume = {"name": "v", "mount_path": "/v", "host_path": {"path": path}}
        apply(attacked, name, "--no-wait", volumes=[volume])
    for name, (_, said) in wanted.items():
        refused(attacked, name, said)


# Secrets.


def test_a_password_is_found_only_where_it_must_be(attacked: Served) -> None:
    secret = {"server": "registry.test", "username": "u", "password": CANARY}
    apply(attacked, "secret", pull_secrets=[secret])
    attacked.until_running("secret", 1)
    said = [attacked.cli("get", "workload", "secret", "-o", form).out for form in ("json", "yaml", "wide")]
    said += [attacked.cli(*words).out for words in (("describe", "workload", "secret"), ("events",))]
    said += [attacked.http(path)[1] for path in ("/health", "/metrics")]
    said.append(attacked.log.read_text())
    assert "(not shown)" in said[0]
    assert not [text for text in said if CANARY in text]
    for _, words in processes():
        assert CANARY not in " ".join(words)
    for path in files(attacked.data_dir):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            if CANARY.encode() in path.read_bytes():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_nobody_else_writes_our_files(attacked: Served) -> None:
    """Also with no umask at all; folders of the containers themselves are open inside closed ones."""
    apply(attacked, "modes")
    data_dir = attacked.data_dir
    for path in (data_dir, *(data_dir / name for name in ("agent", "store", "containerd"))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
        assert path.stat().st_uid == os.geteuid()
    open_to_all = []
    for path in files(data_dir):
        with contextlib.suppress(FileNotFoundError):  # gone since it was listed
            if stat.S_IMODE(path.stat().st_mode) & 0o022:
                open_to_all.append(path)
    assert not open_to_all
    for socket in (data_dir / "containerd").glob("*.sock*"):
        assert stat.S_IMODE(socket.stat().st_mode) & 0o007 == 0, socket
    assert stat.S_IMODE(pathlib.Path("/run/cloudless").stat().st_mode) & 0o022 == 0


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Regular files of the program, without those of containerd's own stores."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if (parent, name) != (str(folder / "containerd"), "root")]
        folders[:] = [name for name in folders if (parent, name) != (str(folder / "containerd"), "state")]
        found += [pathlib.Path(parent, name) for name in names]
    return [path for path in found if path.is_file() and not path.is_symlink()]


# Browsers.


def test_a_page_of_the_web_reads_and_changes_nothing(attacked: Served) -> None:
    host, port = attacked.http_address.split(":")
    for name, status in (("evil.test", 421), ("localhost", 200)):
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/health", headers={"Host": name})
        assert connection.getresponse().status == status
        connection.close()
    for address in (attacked.address, attacked.agent_address):
        connection = http.client.HTTPConnection(*address.split(":"), timeout=10)  # type: ignore[arg-type]
        path = "/cloudless.api.CoordinatorService/CreateWorkload"
        connection.request("POST", path, body=b"x", headers={"Content-Type": "text/plain"})
        assert connection.getresponse().status == 400
        connection.close()
