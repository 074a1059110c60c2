"""A daemon that goes away while it is asked is unreachable, at whatever instant that is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cloudless.containerd.client import ask_version
from cloudless.containerd.errors import Unavailable
from cloudless.containerd.rpc import Connection


async def test_a_connection_that_ends_as_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    path = str(tmp_path / "socket")
    async with await asyncio.start_unix_server(leave, path):
        connection = Connection(path, namespace="test", codec=None)
        make = connection.channel._create_connection

        async def made_and_lost():  # type: ignore[no-untyped-def]
            protocol = await make()
            protocol.processor.close("lost")
            return protocol

        monkeypatch.setattr(connection.channel, "_create_connection", made_and_lost)
        with pytest.raises(Unavailable, match="containerd is not reachable"):
            await ask_version(connection, timeout_s=5.0)
        monkeypatch.undo()
        with pytest.raises(Unavailable, match="containerd is not reachable"):
            await ask_version(connection, timeout_s=5.0)
        connection.close()
