"""``cloudless image`` against an agent in memory."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from cloudless import api
from cloudless.domain.errors import NotFound
from cloudless.transport.server import GuardedServer

DIGEST = "sha256:" + "ab" * 32


class FakeAgent(api.AgentServiceBase):
    """A node with images."""

    def __init__(self) -> None:
        self.images = {"web:1": api.Image("web:1", DIGEST, 5 * 2**20, True)}
        self.imported = b""
        self.deaf = False
        self.secret: api.PullSecret | None = None

    async def list_images(self, message):
        return api.ListImagesResponse(images=list(self.images.values()))

    async def remove_image(self, message):
        if message.reference not in self.images:
            raise NotFound(f"image {message.reference} does not exist")
        del self.images[message.reference]
        return api.RemoveImageResponse()

    async def pull_image(self, message):
        self.secret = message.secret
        if message.reference == "hangs:1":
            yield api.PullImageResponse("resolving")
            await asyncio.Event().wait()
        image = api.Image(message.reference, DIGEST, 10)
        yield api.PullImageResponse("downloading", 0, 100)
        yield api.PullImageResponse("downloading", 50, 100)
        yield api.PullImageResponse("unpacking")
        yield api.PullImageResponse("done", image=image)

    async def import_image(self, messages):
        if self.deaf:
            await asyncio.Event().wait()
        async for message in messages:
            self.imported += message.data
        return api.ImportImageResponse(images=[api.Image("local/app:1", DIGEST, len(self.imported))])


@pytest.fixture
def agent(monkeypatch):
    fake, up = FakeAgent(), threading.Event()
    loop, stop, address = asyncio.new_event_loop(), asyncio.Event(), []

    async def serve():
        async with GuardedServer([fake]) as server:
            address.append(f"127.0.0.1:{await server.listen('127.0.0.1', 0)}")
            up.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert up.wait(10)
    monkeypatch.setenv("CLOUDLESS_AGENT_ADDRESS", address[0])
    yield fake
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_list(cli, agent):
    lines = cli("image", "ls").out.splitlines()
    assert lines[0].split() == ["REFERENCE", "SIZE", "IN", "USE", "DIGEST"]
    assert lines[1].split() == ["web:1", "5Mi", "yes", DIGEST]
    assert cli("image").out == cli("get", "images").out
    assert cli("image", "ls", "-o", "name").out == "image/web:1\n"


def test_pull_tells_each_stage_once_on_a_pipe(cli, agent, monkeypatch):
    monkeypatch.setenv("CLOUDLESS_PASSWORD", "secret")
    result = cli("image", "pull", "h:5000/app:2", "--username", "me")
    assert result.out == f"image/h:5000/app:2 pulled {DIGEST}\n"
    assert result.err.splitlines() == [
        f"h:5000/app:2: {stage}" for stage in ("downloading", "unpacking", "done")
    ]
    assert (agent.secret.server, agent.secret.username, agent.secret.password) == ("h:5000", "me", "secret")


def test_what_came_is_one_document(cli, agent, tmp_path):
    one = json.loads(cli("image", "pull", "h:5000/app:2", "-o", "json").out)
    assert (one["reference"], one["digest"]) == ("h:5000/app:2", DIGEST)
    two = json.loads(cli("image", "pull", "a:1", "b:1", "-o", "json").out)
    assert [item["reference"] for item in two["items"]] == ["a:1", "b:1"]
    (tmp_path / "app.tar").write_bytes(b"x")
    found = json.loads(cli("image", "import", "app.tar", "-o", "json").out)
    assert [item["reference"] for item in found["items"]] == ["local/app:1"]
    assert cli("image", "pull", "a:1", "-o", "name").out == "image/a:1\n"
    refused = cli("image", "rm", "web:1", "-o", "json")
    assert (refused.code, refused.out) == (2, "")
    assert "web:1" in agent.images


def test_remove(cli, agent):
    assert cli("image", "rm", "web:1").out == "image/web:1 removed\n"
    assert cli("image", "rm", "web:1").code == 5
    assert cli("image", "ls").err == "no images\n"


def test_import_sends_the_whole_archive(cli, agent, tmp_path):
    (tmp_path / "app.tar").write_bytes(bytes(range(256)) * 3000)
    result = cli("image", "import", "app.tar")
    assert (result.code, result.out) == (0, f"image/local/app:1 imported {DIGEST}\n")
    assert agent.imported == bytes(range(256)) * 3000
    assert cli("image", "import", "-", stdin=b"more").code == 0
    assert agent.imported.endswith(b"more")
    result = cli("image", "import", "missing.tar")
    assert result.code == 1
    assert "cannot read missing.tar: no such file or directory" in result.err


def test_a_pull_or_an_import_that_hangs_ends_in_time(cli, agent, tmp_path):
    result = cli("--timeout", "300ms", "image", "pull", "hangs:1")
    assert (result.code, result.out) == (124, "")
    assert "error: image hangs:1 was not pulled within 0.3 s" in result.err
    agent.deaf = True
    (tmp_path / "app.tar").write_bytes(b"x")
    result = cli("--timeout", "300ms", "image", "import", "app.tar")
    assert (result.code, result.out) == (124, "")
    assert "error: the archive was not imported within 0.3 s" in result.err


def test_without_an_agent(cli, monkeypatch):
    assert cli("image", "ls", "--agent-address", "127.0.0.1:1").code == 8
    assert cli("image", "rm").code == 2
