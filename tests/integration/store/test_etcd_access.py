"""Who may speak to etcd: client certificates, users, tokens that end."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from aetcd import rpc
from tests.integration.store.etcd_server import EtcdServer
from tests.unit.store.subject import put, revision_of, take

from cloudless.aio.clock import SystemClock
from cloudless.store.errors import AccessDenied
from cloudless.store.port import Store
from cloudless.store.url import open_store

CLOCK = SystemClock()


def openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    """A CA ``name`` and, signed by it, a certificate for server and client."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl(
        *("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
        folder=folder,
    )
    leaf = f"{name}-leaf"
    openssl(
        *("req", *key[:5], "-subj", f"/CN={leaf}", "-keyout", f"{leaf}.key", "-out", f"{leaf}.csr"),
        folder=folder,
    )
    openssl(
        *("x509", "-req", "-in", f"{leaf}.csr", "-CA", f"{name}.pem", "-CAkey", f"{name}.key"),
        *("-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{leaf}.pem"),
        folder=folder,
    )


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[EtcdServer]:
    authority(tmp_path, "ours")
    authority(tmp_path, "rogue")
    tls = (
        f"--cert-file={tmp_path}/ours-leaf.pem",
        f"--key-file={tmp_path}/ours-leaf.key",
        f"--trusted-ca-file={tmp_path}/ours.pem",
        "--client-cert-auth",
    )
    server = EtcdServer(tmp_path, tls=tls)
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def test_mutual_tls(tls_server: EtcdServer) -> None:
    folder = tls_server.folder
    leaf = f"cert={folder}/ours-leaf.pem&key={folder}/ours-leaf.key"
    url = f"etcd://{tls_server.address}/p?ca={folder}/ours.pem&{leaf}"
    async with open_store(url, CLOCK, new_id=str) as store:
        start = await revision_of(store) + 1
        async with store.watch("", start_revision=start) as batches:
            await put(store, "k")
            await tls_server.restart()
            await put(store, "k")
            assert len(await take(batches, 2)) == 2
        assert (await store.status()).ready


@pytest.mark.parametrize(
    "query",
    [
        "ca={0}/ours.pem",
        "ca={0}/ours.pem&cert={0}/rogue-leaf.pem&key={0}/rogue-leaf.key",
        "ca={0}/rogue.pem&cert={0}/ours-leaf.pem&key={0}/ours-leaf.key",
        "",
    ],
)
async def test_strangers_get_no_answer(tls_server: EtcdServer, query: str) -> None:
    url = f"etcd://{tls_server.address}?{query.format(tls_server.folder)}"
    async with open_store(url, CLOCK, new_id=str) as store:
        assert not (await store.status()).ready


@pytest.fixture
async def guarded(server: EtcdServer) -> EtcdServer:
    """Authentication is on; ``me`` may do everything under ``/mine/`` and nothing else."""
    async with grpc.aio.insecure_channel(server.address) as channel:
        auth: Any = rpc.AuthStub(channel)
        mine = rpc.Permission(permType=rpc.Permission.READWRITE, key=b"/mine/", range_end=b"/mine0")
        await auth.UserAdd(rpc.AuthUserAddRequest(name="root", password="secret"))
        await auth.RoleAdd(rpc.AuthRoleAddRequest(name="root"))
        await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        await auth.UserAdd(rpc.AuthUserAddRequest(name="me", password="pass word"))
        await auth.RoleAdd(rpc.AuthRoleAddRequest(name="mine"))
        await auth.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name="mine", perm=mine))
        await auth.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="me", role="mine"))
        await auth.AuthEnable(rpc.AuthEnableRequest())
    return server


async def use(store: Store) -> None:
    start = await revision_of(store) + 1
    async with store.watch("", start_revision=start) as batches:
        lease = await store.grant(10)
        await put(store, "k", b"", lease.id)
        await store.keep_alive(lease)
        assert len(await take(batches, 1)) == 1
    assert await store.get("k") is not None


async def test_a_token_is_renewed_when_etcd_forgot_it(guarded: EtcdServer, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("pass word\n")
    url = f"etcd://{guarded.address}/mine?user=me&password_file={secret}"
    async with open_store(url, CLOCK, new_id=str) as store:
        await use(store)
        start = await revision_of(store) + 1
        async with store.watch("", start_revision=start) as batches:
            await guarded.restart()
            await asyncio.gather(*(use(store) for _ in range(5)))
            assert len(await take(batches, 5)) == 5
        assert (await store.status()).ready


async def test_refusals_are_named(guarded: EtcdServer) -> None:
    async def refused(login: str, prefix: str) -> None:
        async with open_store(f"etcd://{login}{guarded.address}{prefix}", CLOCK, new_id=str) as store:
            with pytest.raises(AccessDenied):
                await store.get("k")
            with pytest.raises(AccessDenied):
                await put(store, "k")
            async with store.watch("", start_revision=1) as batches:
                with pytest.raises(AccessDenied):
                    await take(batches, 1)

    await refused("me:wrong@", "/mine")
    await refused("me:pass%20word@", "/others")
    await refused("", "/mine")


async def test_a_user_is_no_trouble_without_authentication(server: EtcdServer) -> None:
    async with open_store(f"etcd://me:secret@{server.address}", CLOCK, new_id=str) as store:
        await use(store)
