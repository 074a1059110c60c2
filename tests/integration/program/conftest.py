"""One running program for most tests of this folder; tests that kill have their own."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest
from tests.integration.conftest import need_containerd
from tests.integration.containerd import imagebuild
from tests.integration.containerd.registry import Registry, running_registry
from tests.integration.program.census import leftovers
from tests.integration.program.served import Served

#: What nearly all tests run; not ``latest``, which is always asked for at a registry.
IMAGE = "docker.io/library/busybox:1"


@pytest.fixture(scope="session")
def image_archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    if not imagebuild.BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    return imagebuild.docker_archive(path, IMAGE, [imagebuild.busybox_layer()])


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path, protected=False) as found:
        yield found


@pytest.fixture(scope="module")
def serve(image_archive: pathlib.Path) -> Iterator[Callable[..., Served]]:
    """Starts programs for one module; see ``serving``. Each has a range of addresses, of which a
    machine has twenty.
    """
    with serving(image_archive) as make:
        yield make


@pytest.fixture(scope="session")
def serve_all(image_archive: pathlib.Path) -> Iterator[Callable[..., Served]]:
    """Starts programs that several modules share."""
    with serving(image_archive) as make:
        yield make


@contextlib.contextmanager
def serving(image_archive: pathlib.Path) -> Iterator[Callable[..., Served]]:
    """Starts programs with folders of their own; all end, and nothing of them may be left."""
    need_containerd()
    # Not below pytest's folders: the path of a socket must be short.
    parent = pathlib.Path(tempfile.mkdtemp(prefix="cls-"))
    started: list[Served] = []

    def make(*flags: str, name: str, **options: str) -> Served:
        # Modules that know nothing of each other may choose the same name.
        made = Served(parent / f"{name}-{len(started)}", *flags, **options)
        started.append(made)
        made.start()
        made.cli("image", "import", str(image_archive))
        return made

    yield make
    left = [line for made in started for line in _end(made)]
    shutil.rmtree(parent)
    assert not left, "\n".join(left)


@pytest.fixture(scope="session")
def allowed_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of the node that workloads of the shared program may mount."""
    return tmp_path_factory.mktemp("allowed")


@pytest.fixture(scope="session")
def program(serve_all: Callable[..., Served], allowed_folder: pathlib.Path) -> Served:
    """The shared one."""
    return serve_all("--host-path", str(allowed_folder), name="shared")


@pytest.fixture
def tidy(program: Served) -> Iterator[Served]:
    """The shared program; workloads that a test made are gone after it."""
    yield program
    items = program.cli("get", "workloads", "-A", "-o", "json").json["items"]
    for space in {one["namespace"] for one in items}:
        names = [one["name"] for one in items if one["namespace"] == space]
        program.cli("-n", space, "delete", *names, "--grace", "0s", "--wait", "--ignore-missing", "-q")


def _end(made: Served) -> list[str]:
    if not made.data_dir.exists():
        return []
    node_id = made.node_id
    made.end()
    return leftovers(made.data_dir, node_id)
