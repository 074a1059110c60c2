"""Store URLs: what they mean, and what is wrong with the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.store.subject import put

import cloudless
from cloudless.aio.clock import ManualClock
from cloudless.store.errors import InvalidRequest
from cloudless.store.url import EmbeddedUrl, EtcdUrl, MemoryUrl, open_store, parse_store_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", MemoryUrl()),
        ("memory:", MemoryUrl()),
        ("embedded:///var/lib/x", EmbeddedUrl(Path("/var/lib/x"))),
        ("embedded:///var/with%20space", EmbeddedUrl(Path("/var/with space"))),
        ("embedded:data", EmbeddedUrl(Path("data"))),
        ("etcd://h", EtcdUrl(("h:2379",))),
        ("etcd://h:1,g:2,[::1]:3,[::2]/", EtcdUrl(("h:1", "g:2", "[::1]:3", "[::2]:2379"))),
        ("etcd://h/a/b/", EtcdUrl(("h:2379",), prefix="/a/b/")),
        ("etcd://me:p%40ss@h,g", EtcdUrl(("h:2379", "g:2379"), user="me", password="p@ss")),
        (
            "etcd://h?ca=/ca&cert=/c&key=/k&user=me&password_file=/p",
            EtcdUrl(
                ("h:2379",),
                ca=Path("/ca"),
                cert=Path("/c"),
                key=Path("/k"),
                user="me",
                password_file=Path("/p"),
            ),
        ),
    ],
)
def test_good_urls(url: str, expected: object) -> None:
    assert parse_store_url(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not one of"),
        ("redis://h", "not one of"),
        ("memory://host", "not one of"),
        ("embedded://", "not one of"),
        ("embedded://host/path", "not one of"),
        ("etcd://", "not one of"),
        ("etcd://h:port", "endpoint"),
        ("etcd://h,,g", "no host"),
        ("etcd://h:99999", "endpoint"),
        ("etcd://h?tls=yes", "unknown parameter 'tls'"),
        ("etcd://h?ca=/ca&cert=/c", "come together"),
        ("etcd://h?cert=/c&key=/k", "needs ca"),
        ("etcd://[h", "not a URL"),
    ],
)
def test_bad_urls(url: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parse_store_url(url)


async def test_opening(tmp_path: Path, clock: ManualClock) -> None:
    for url in ("memory://", f"embedded://{tmp_path}/new/store"):
        async with open_store(url, clock, new_id=lambda: "mine") as store:
            await put(store, "k")
    async with open_store(url, clock, new_id=lambda: "other") as store:
        assert await store.get("k") is not None
        assert (await store.status()).identity == "mine"


async def test_secrets_are_read_when_opening(tmp_path: Path, clock: ManualClock) -> None:
    with pytest.raises(FileNotFoundError):
        open_store(f"etcd://h?ca={tmp_path}/none", clock, new_id=str)


def test_only_etcd_needs_grpc() -> None:
    code = (
        "import sys, cloudless.store.url, cloudless.store.election, cloudless.store.embedded;"
        "sys.exit('grpc' in sys.modules or 'aetcd' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(cloudless.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
