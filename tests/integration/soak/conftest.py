"""One program for the tests of this folder that do not kill; a registry beside it."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from tests.integration.containerd.registry import Registry, running_registry
from tests.integration.program.conftest import image_archive, serve_all
from tests.integration.program.served import Served
from tests.integration.soak.proxy import Proxy, running_proxy

import cloudless

__all__ = ["image_archive", "serve_all"]


@pytest.fixture(scope="session")
def program(serve_all: Callable[..., Served]) -> Served:
    return serve_all(name="soak")


@pytest.fixture
async def client(program: Served) -> AsyncIterator[cloudless.Client]:
    """Workloads that a test made are gone after it."""
    async with program.client() as client:
        yield client
        for workload in await client.list():
            await client.follow(await client.delete(workload.name, grace_s=0), "deleted")


def _registry(folder: pathlib.Path, *, protected: bool) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(folder, protected=protected) as registry:
        yield registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _registry(tmp_path_factory.mktemp("registry"), protected=False)


@pytest.fixture(scope="session")
def locked_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from _registry(tmp_path_factory.mktemp("locked"), protected=True)


@pytest.fixture
async def proxy(registry: Registry) -> AsyncIterator[Proxy]:
    async with running_proxy(int(registry.host.rpartition(":")[2])) as proxy:
        yield proxy
