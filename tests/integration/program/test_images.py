"""Images: from a registry of our own, by every policy, with credentials and pins."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Iterator

import pytest
from tests.integration.containerd import imagebuild
from tests.integration.containerd.registry import PASSWORD, USER, Registry, running_registry
from tests.integration.program.conftest import IMAGE
from tests.integration.program.served import Served
from tests.integration.program.test_lifecycle import manifest


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path, protected=False) as found:
        yield found


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


def test_archives(tidy: Served, image_archive: pathlib.Path, tmp_path: pathlib.Path) -> None:
    layers = [imagebuild.busybox_layer()]
    archive = imagebuild.oci_archive(tmp_path / "oci.tar", "example.test/oci:1", layers)
    assert "example.test/oci:1" in tidy.cli("image", "import", str(archive)).out
    tidy.cli("image", "import", "-", stdin=image_archive.read_bytes())
    assert {"example.test/oci:1", IMAGE} <= set(tidy.cli("image", "ls").out.split())
    tidy.cli("image", "rm", "example.test/oci:1")
    (tmp_path / "junk.tar").write_bytes(b"no archive")
    assert tidy.cli("image", "import", str(tmp_path / "junk.tar"), code=1).err.count("error: ") == 1
