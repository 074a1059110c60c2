"""Images: imports of both kinds of archive, and pulls from a registry on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import pathlib
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from tests.integration.conftest import BUSYBOX_IMAGE
from tests.integration.containerd import imagebuild
from tests.integration.containerd.conftest import DEADLINE_S, Bench
from tests.integration.containerd.imagebuild import Entry
from tests.integration.containerd.registry import PASSWORD, USER, Registry, running_registry

from cloudless.aio.clock import SystemClock
from cloudless.containerd import errors
from cloudless.containerd.client import ContainerdClient
from cloudless.containerd.content import Ingest
from cloudless.containerd.images import Image
from cloudless.containerd.plan import User
from cloudless.containerd.pull import Credentials, PullProgress
from cloudless.containerd.references import pinned

UPPER = imagebuild.layer(
    {
        "etc/motd": Entry(b"from above\n"),
        "etc/.wh.group": Entry(b""),
        "home/deep": Entry(None, 0o755),
    }
)


def layers() -> list[bytes]:
    return [imagebuild.busybox_layer(["sh", "cat", "sleep", "true", "id", "ls"]), UPPER]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path_factory.mktemp("registry"), protected=False) as running:
        yield running


@pytest.fixture(scope="module")
def protected_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with running_registry(tmp_path_factory.mktemp("protected"), protected=True) as running:
        yield running


async def check_runs(bench: Bench, image: Image) -> None:
    container_id = await bench.start("sleep", "1000", image=image.name)
    result = await bench.exec(container_id, "cat", "/etc/motd")
    assert result.stdout == b"from above\n"
    assert (await bench.exec(container_id, "ls", "/etc/group")).exit_code != 0
    await bench.destroy(container_id)


@pytest.mark.parametrize("kind", ["docker", "oci", "docker gzipped"])
async def test_an_archive_is_imported_runs_and_goes(bench: Bench, tmp_path: pathlib.Path, kind: str) -> None:
    name = f"example.com/imported/{kind.replace(' ', '-')}:v1"
    build = imagebuild.oci_archive if kind == "oci" else imagebuild.docker_archive
    path = build(tmp_path / "image.tar", name, layers(), User="web", ExposedPorts={"80/tcp": {}})
    if kind.endswith("gzipped"):
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    (image,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    assert image.name == name
    assert (image.config.user, image.config.ports) == ("web", ("80/tcp",))
    assert image.config.command == ("sh",)
    await check_runs(bench, image)
    # A second import finds everything there.
    assert await bench.client.importer.import_archive(path, spool_dir=tmp_path) == (image,)
    assert not [one for one in await bench.client.leases.list() if "import" in one]
    assert await bench.client.images.delete(name) != ()
    with pytest.raises(errors.ImageNotFound):
        await bench.client.images.resolve(name)
    with pytest.raises(errors.NotFound):
        await bench.client.content.info(image.digest)
    assert not await bench.client.snapshots.exists(image.chain_id)


async def test_an_imported_image_outlives_the_collector(bench: Bench, tmp_path: pathlib.Path) -> None:
    path = imagebuild.docker_archive(tmp_path / "i.tar", "example.com/kept:v1", layers())
    (image,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    other = imagebuild.docker_archive(
        tmp_path / "o.tar", "example.com/other:v1", [imagebuild.layer({"x": Entry(b"x")})]
    )
    await bench.client.importer.import_archive(other, spool_dir=tmp_path)
    await bench.client.images.delete("example.com/other:v1")  # returns after a whole collection
    assert await bench.client.snapshots.exists(image.chain_id)
    await check_runs(bench, image)
    await bench.client.images.delete(image.name)


async def test_the_cri_plugin_sees_an_import(bench: Bench, tmp_path: pathlib.Path) -> None:
    from cloudless.api.runtime.v1 import ImageServiceStub, ImageSpec, ImageStatusRequest

    name = "example.com/seen:v1"
    path = imagebuild.docker_archive(tmp_path / "i.tar", name, layers())
    await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    stub = bench.client.connection.stub(ImageServiceStub)
    async with asyncio.timeout(10):
        while True:  # the plugin hears of it by an event
            answer = await stub.image_status(ImageStatusRequest(image=ImageSpec(image=name)))
            if answer.image is not None:
                break
            await asyncio.sleep(0.01)
    assert answer.image.repo_tags == [name]
    await bench.client.images.delete(name)


async def test_an_override_names_the_image(bench: Bench, tmp_path: pathlib.Path) -> None:
    path = imagebuild.docker_archive(tmp_path / "i.tar", "example.com/a:v1", layers())
    (image,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path, name="mine")
    assert image.name == "docker.io/library/mine:latest"
    await bench.client.images.delete("mine")


@pytest.mark.parametrize("damage", ["cut off", "not a tar", "empty", "missing"])
async def test_a_bad_archive_leaves_nothing(bench: Bench, tmp_path: pathlib.Path, damage: str) -> None:
    path = imagebuild.docker_archive(tmp_path / "i.tar", "example.com/bad:v1", layers())
    data = path.read_bytes()
    path.write_bytes({"cut off": data[: len(data) // 2], "not a tar": b"x" * 2048}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    before = await state(bench.client)
    with pytest.raises((errors.InvalidImage, errors.InvalidRequest)):
        await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    # Less may be there: the collector takes what earlier tests have left, when it likes.
    assert await state(bench.client) <= before


async def state(client: ContainerdClient) -> set[str | Ingest]:
    """Names of images, snapshots and leases, and what is being written."""
    return {
        *(image.name for image in await client.images.list()),
        *(snapshot.name for snapshot in await client.snapshots.list()),
        *await client.content.ingests(),
        *await client.leases.list(),
    }


async def test_users_are_found_in_the_layers(bench: Bench, tmp_path: pathlib.Path) -> None:
    image = await bench.client.images.resolve(BUSYBOX_IMAGE)
    accounts = bench.client.accounts
    assert await accounts.in_image(image.chain_id, "web") == User(1001, 1002, (1005,), "/home/web")
    assert await accounts.in_image(image.chain_id, "") == User(0, 0, (1005,), "/root")
    with pytest.raises(errors.InvalidRequest):
        await accounts.in_image(image.chain_id, "nobody-here")
    # In the upper layer a whiteout hides the groups.
    path = imagebuild.docker_archive(tmp_path / "i.tar", "example.com/users:v1", layers())
    (upper,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    assert await accounts.in_image(upper.chain_id, "web") == User(1001, 1002, (), "/home/web")
    await bench.client.images.delete(upper.name)
    assert not [one for one in await bench.client.leases.list() if "view" in one]
    assert not [one.name for one in await bench.client.snapshots.list() if "view" in one.name]


async def test_a_pull_resolves_runs_and_reports(bench: Bench, registry: Registry) -> None:
    pushed = imagebuild.oci_image(layers(), Entrypoint=["/bin/cat"], StopSignal="SIGQUIT")
    name = registry.push("team/app", "v1", pushed)
    seen: list[PullProgress] = []
    image = await bench.client.puller.pull(name, on_progress=seen.append)
    assert (image.name, image.digest) == (name, pushed.digest)
    assert (image.config.entrypoint, image.config.stop_signal) == (("/bin/cat",), "SIGQUIT")
    assert image.size_bytes == sum(map(len, pushed.blobs.values()))
    assert seen
    await check_runs(bench, image)
    by_digest = f"{name.removesuffix(':v1')}@{pushed.digest}"
    assert (await bench.client.puller.pull(by_digest)).config_digest == image.config_digest
    removed = await bench.client.images.delete(name)
    assert set(removed) >= {name, by_digest}
    assert not [one for one in await bench.client.images.list() if one.digest == image.digest]


async def test_a_tag_that_moves_is_pulled_anew(bench: Bench, registry: Registry) -> None:
    first = imagebuild.oci_image(layers(), Cmd=["one"])
    second = imagebuild.oci_image(layers(), Cmd=["two"])
    name = registry.push("team/moving", "v1", first)
    assert (await bench.client.puller.pull(name)).config.command == ("one",)
    registry.push("team/moving", "v1", second)
    assert (await bench.client.images.resolve(name)).config.command == ("one",)
    image = await bench.client.puller.pull(name)
    assert (image.config.command, image.digest) == (("two",), second.digest)


async def test_a_digest_is_lent_by_its_repository_and_by_imports_only(
    bench: Bench, registry: Registry, tmp_path: pathlib.Path
) -> None:
    first, second = (imagebuild.oci_image(layers(), Cmd=[word]) for word in ("lent", "other"))
    name = registry.push("team/lent", "v1", first)
    await bench.client.puller.pull(name)
    registry.push("team/lent", "v1", second)
    await bench.client.puller.pull(name)
    assert (await bench.client.images.resolve(pinned(name, first.digest))).config.command == ("lent",)
    stranger = pinned("example.com/stranger", first.digest)
    with pytest.raises(errors.ImageNotFound):
        await bench.client.images.resolve(stranger)
    path = imagebuild.oci_archive(tmp_path / "i.tar", "example.com/mine:v1", layers(), Cmd=["lent"])
    (mine,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    assert (mine.digest, mine.imported) == (first.digest, True)
    found = await bench.client.images.resolve(stranger)
    assert (found.name, found.config.command) == (stranger, ("lent",))
    for one in ("example.com/mine:v1", name):
        await bench.client.images.delete(one)
    assert not [one for one in await bench.client.images.list() if one.digest == first.digest]


async def test_an_import_that_a_pull_replaces_is_none_any_more(
    bench: Bench, registry: Registry, tmp_path: pathlib.Path
) -> None:
    name = registry.push("team/replaced", "v1", imagebuild.oci_image(layers(), Cmd=["pulled"]))
    path = imagebuild.docker_archive(tmp_path / "i.tar", name, layers())
    (image,) = await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    pulled = await bench.client.puller.pull(name)
    assert (pulled.config.command, pulled.imported) == (("pulled",), False)
    kept = await bench.client.images.resolve(pinned(name, image.digest))
    assert (kept.digest, kept.imported) == (image.digest, True)
    for one in (name, kept.name):
        await bench.client.images.delete(one)


async def test_what_the_registry_lacks(bench: Bench, registry: Registry) -> None:
    registry.push("team/present", "v1", imagebuild.oci_image(layers()))
    for name in ("team/nobody:v1", "team/present:v2"):
        with pytest.raises(errors.ImageNotFound):
            await bench.client.puller.pull(f"{registry.host}/{name}")


async def test_an_image_for_another_machine(bench: Bench, registry: Registry) -> None:
    foreign = imagebuild.oci_image(layers())
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": imagebuild.OCI_MANIFEST,
                "digest": foreign.digest,
                "size": len(foreign.manifest),
                "platform": {"os": "linux", "architecture": "s390x"},
            }
        ],
    }
    registry.push("team/foreign", "only", foreign)
    name = registry.push_index("team/foreign", "v1", index)
    with pytest.raises(errors.ImageNotFound):
        await bench.client.puller.pull(name)


async def test_nobody_at_the_registrys_address(bench: Bench) -> None:
    with pytest.raises(errors.RegistryUnavailable):
        await bench.client.puller.pull("127.0.0.1:1/team/app:v1")


async def test_credentials(bench: Bench, protected_registry: Registry) -> None:
    name = protected_registry.push("team/secret", "v1", imagebuild.oci_image(layers()))
    for credentials in (None, Credentials(USER, "wrong")):
        with pytest.raises(errors.RegistryUnauthorized) as caught:
            await bench.client.puller.pull(name, credentials=credentials)
        assert "wrong" not in caught.value.message
    right = Credentials(USER, PASSWORD)
    assert PASSWORD not in repr(right)
    assert (await bench.client.puller.pull(name, credentials=right)).name == name


@asynccontextmanager
async def stalling(registry: Registry, limit_bytes: int) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Another address of the registry: no connection brings more than so much until the event is set."""
    released = asyncio.Event()
    serving: list[asyncio.Task[None]] = []
    host, _, port = registry.host.partition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        count = 0
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while data := await reader.read(65536):
                count += len(data)
                if back and count > limit_bytes:
                    await released.wait()
                writer.write(data)
                await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
            with contextlib.closing(there_writer):
                await asyncio.gather(
                    pass_on(reader, there_writer, back=False), pass_on(there_reader, writer, back=True)
                )

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"{host}:{server.sockets[0].getsockname()[1]}", released
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


async def test_a_cancelled_pull_leaves_nothing_under_way(bench: Bench, registry: Registry) -> None:
    noise = imagebuild.layer({"noise": Entry(pathlib.Path("/bin/busybox").read_bytes() * 10)})
    pushed = registry.push("team/large", "v1", imagebuild.oci_image([noise]))
    # It stops in the middle: else it might be over before anybody has seen that it began.
    async with stalling(registry, limit_bytes=1 << 20) as (address, released):
        name = pushed.replace(registry.host, address)
        pulling = asyncio.ensure_future(bench.client.puller.pull(name))
        async with asyncio.timeout(DEADLINE_S):
            while not pulling.done() and not await bench.client.content.ingests():
                continue
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        with pytest.raises(errors.ImageNotFound):
            await bench.client.images.resolve(name)
        released.set()
        image = await bench.client.puller.pull(name)  # and another one is not disturbed
    assert dataclasses.asdict(image)["name"] == name


async def test_unused_images_are_known(bench: Bench, tmp_path: pathlib.Path) -> None:
    path = imagebuild.docker_archive(tmp_path / "i.tar", "example.com/idle:v1", layers())
    await bench.client.importer.import_archive(path, spool_dir=tmp_path)
    await bench.start()
    used = {record.image for record in await bench.client.containers.list()}
    unused = {record.name for record in await bench.client.images.unused(used)}
    assert "example.com/idle:v1" in unused
    assert BUSYBOX_IMAGE not in unused
    await bench.client.images.delete("example.com/idle:v1")


async def test_blobs_that_another_namespace_holds_are_imported_as_well(
    containerd_client: ContainerdClient, tmp_path: pathlib.Path
) -> None:
    """containerd shares blobs between namespaces: such a write is complete before it begins."""
    archive = imagebuild.docker_archive(tmp_path / "shared.tar", "localhost/shared:1", layers())
    (first,) = await containerd_client.importer.import_archive(archive, spool_dir=tmp_path)
    other = ContainerdClient(
        containerd_client.socket, namespace="other", clock=SystemClock(), new_id=lambda: uuid.uuid4().hex
    )
    async with other:
        (second,) = await other.importer.import_archive(archive, spool_dir=tmp_path)
        assert second == first
        await other.images.delete(second.name)
    await containerd_client.images.delete(first.name)
