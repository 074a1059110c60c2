"""Images: from a registry of our own, by every policy, with credentials and pins."""

from __future__ import annotations

import pathlib
import shutil
import socket
import time

import pytest
from tests.integration.containerd import imagebuild
from tests.integration.containerd.registry import PASSWORD, USER, Registry, running_registry
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import LIMIT_S, Served, until
from tests.integration.program.test_lifecycle import manifest


def built(word: str) -> imagebuild.OciImage:
    return imagebuild.oci_image([imagebuild.busybox_layer()], Env=["PATH=/bin", f"WORD={word}"])


def word(served: Served) -> str:
    return served.cli("exec", "web", "--", "sh", "-c", "echo $WORD").out.strip()


def apply(served: Served, code: int = 0, **fields: object) -> str:
    return served.cli("apply", "-f", "-", "-q", stdin=manifest(name="web", **fields), code=code).said


def test_policies_and_pins(tidy: Served, registry: Registry) -> None:
    one, two = built("one"), built("two")
    image = registry.push("team/app", "v", one)
    assert "NEVER" in apply(tidy, 3, image=image, image_pull_policy="NEVER")
    tidy.cli("delete", "web", "--wait", "-q")
    apply(tidy, image=image, image_pull_policy="IF_NOT_PRESENT")
    assert word(tidy) == "one"
    registry.push("team/app", "v", two)
    apply(tidy, image=image, image_pull_policy="IF_NOT_PRESENT", env={"A": "1"})
    assert word(tidy) == "one"
    apply(tidy, image=image, image_pull_policy="ALWAYS")
    assert word(tidy) == "two"
    pinned = f"{image.rpartition(':')[0]}@{one.digest}"
    apply(tidy, image=pinned)
    assert word(tidy) == "one"
    (seen,) = tidy.replicas("web")
    assert seen["image_digest"] == one.digest
    tidy.cli("delete", "web", "--grace", "0s", "--wait", "-q")
    tidy.cli("image", "rm", image)
    assert image not in tidy.cli("image", "ls").out
    tidy.cli("image", "pull", image)
    assert image in tidy.cli("image", "ls").out
    tidy.cli("image", "rm", image)
    missing = f"{registry.host}/team/none:1"
    assert "ImageNotFound" in apply(tidy, 3, image=missing)


def test_credentials(tidy: Served, tmp_path: pathlib.Path) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path, protected=True) as registry:
        image = registry.push("team/private", "v", built("private"))
        assert "ImagePullDenied" in apply(tidy, 3, image=image)
        tidy.cli("delete", "web", "--wait", "-q")
        wrong = [{"server": registry.host, "username": USER, "password": "wrong"}]
        assert "ImagePullDenied" in apply(tidy, 3, image=image, pull_secrets=wrong)
        tidy.cli("delete", "web", "--wait", "-q")
        apply(tidy, image=image, pull_secrets=[{**wrong[0], "password": PASSWORD}])
        assert word(tidy) == "private"
        described = tidy.cli("describe", "workload", "web").out
        assert f"password: {PASSWORD}" not in described
        assert f'"{PASSWORD}"' not in tidy.log.read_text()


def test_a_tag_that_was_imported_anew(tidy: Served, tmp_path: pathlib.Path) -> None:
    name = "docker.io/library/moving:1"

    def take_in(value: str) -> str:
        layers = [imagebuild.busybox_layer()]
        path = tmp_path / f"{value}.tar"
        imagebuild.oci_archive(path, name, layers, Env=["PATH=/bin", f"WORD={value}"])
        return tidy.cli("image", "import", str(path)).out.split()[-1]

    def digest() -> str:
        (seen,) = tidy.replicas("web", phase="RUNNING")
        return str(seen["image_digest"])

    old = take_in("old")
    apply(tidy, image=name)
    assert digest() == old
    new = take_in("new")
    same = manifest(name="web", image=name)
    told = until(
        lambda: found if (found := tidy.cli("diff", "-f", "-", stdin=same, code=None)).code else None,
        "the tag is seen to have moved",
    )
    shown = f"~ image digest: {old[:19]} -> {new[:19]} on node-1"
    assert (told.code, shown in told.out) == (1, True)
    applied = tidy.cli("apply", "-f", "-", stdin=same).out
    assert "workload/web unchanged" in applied
    assert "the tag now names another image: cloudless rollout restart web --pull" in applied
    assert shown in tidy.cli("rollout", "status", "web").out
    tidy.cli("rollout", "restart", "web", "-q")
    assert (digest(), word(tidy)) == (old, "old")
    tidy.cli("rollout", "restart", "web", "--pull", "-q")
    assert (digest(), word(tidy)) == (new, "new")
    assert "was imported to this node" in tidy.cli("get", "events", "-o", "json").out
    tidy.cli("rollout", "undo", "web", "-q")
    assert (digest(), word(tidy)) == (old, "old")
    tidy.cli("delete", "web", "--grace", "0s", "--wait", "-q")
    tidy.cli("image", "rm", name, f"moving@{old}")
    assert "moving" not in tidy.cli("image", "ls").out


def test_archives(tidy: Served, image_archive: pathlib.Path, tmp_path: pathlib.Path) -> None:
    layers = [imagebuild.busybox_layer()]
    archive = imagebuild.oci_archive(tmp_path / "oci.tar", "example.test/oci:1", layers)
    assert "example.test/oci:1" in tidy.cli("image", "import", str(archive)).out
    tidy.cli("image", "import", "-", stdin=image_archive.read_bytes())
    assert {"example.test/oci:1", IMAGE} <= set(tidy.cli("image", "ls").out.split())
    tidy.cli("image", "rm", "example.test/oci:1")
    (tmp_path / "junk.tar").write_bytes(b"no archive")
    assert tidy.cli("image", "import", str(tmp_path / "junk.tar"), code=1).err.count("error: ") == 1


def test_a_registry_that_accepts_and_never_answers(tidy: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = f"127.0.0.1:{silent.getsockname()[1]}/x:1"
        since_s = time.monotonic()
        result = tidy.cli("image", "pull", reference, "--timeout", "2s", code=124)
        assert result.out == ""
        assert f"image {reference} was not pulled within 2 s" in result.err
        assert 2 <= time.monotonic() - since_s < LIMIT_S / 2
