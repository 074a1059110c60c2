"""The quickstart, page and all: everything in it is run in its order on a real cluster."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from tests.docs.conftest import run
from tests.docs.pages import ROOT, Block, blocks, cloudless_words
from tests.integration.program.served import Served

PAGE = ROOT / "docs" / "quickstart.md"
STEPS = blocks("console", "sh", "yaml", "python", page=PAGE)
#: What the fixture does instead, and what installs.
NOT_HERE = re.compile(r"cloudless (serve|reset) |export PATH|\./demo --setup")
DESCRIPTORS = ROOT / "src" / "cloudless" / "api" / "descriptors.binpb"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like the checkout, in which files may be written."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    return tmp_path


def test_everything_in_order(served: Served, checkout: Path) -> None:
    manifests = [block for block in STEPS if block.language == "yaml"]
    assert len(manifests) == 1
    (checkout / "api.yaml").write_text(manifests[0].text)
    done = [command for block in STEPS for command in _do(block, served, checkout)]
    assert len(done) >= 18
    left = run(served, ["cloudless", "get", "workloads", "-o", "name"], checkout).split()
    assert left == ["workload/test"]  # made with grpcurl, from an image that is somewhere else
    run(served, ["cloudless", "delete", "test", "--wait"], checkout)


def test_the_manifest_is_named_where_it_is_used() -> None:
    used = {word for block in STEPS for words in _calls(block) for word in words if word.endswith(".yaml")}
    assert used == {"api.yaml"}
    assert "`api.yaml`" in PAGE.read_text()


def _calls(block: Block) -> list[list[str]]:
    return [words for command in block.commands() for words in cloudless_words(command)]


def _do(block: Block, served: Served, folder: Path) -> list[str]:
    """Do what a block says; the commands that were run."""
    if block.language == "python":
        run(served, [sys.executable, "-W", "error", "-c", block.text], folder)
        return [block.text]
    done = []
    for command in block.commands():
        if NOT_HERE.match(command):
            continue
        if command.startswith("grpcurl "):
            _call(shlex.split(command)[1:], served)
        elif command.startswith("curl "):
            _fetch(command, served)
        else:
            run(served, ["/bin/sh", "-c", command], folder)
        done.append(command)
    return done


def _call(words: list[str], served: Served) -> None:
    """What grpcurl does with these words, at the served address."""
    plaintext, data_flag, data, address, method = words
    assert (plaintext, data_flag, address) == ("-plaintext", "-d", "localhost:8080")
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.Add(file)
    found = pool.FindMethodByName(method.replace("/", "."))
    request = json_format.Parse(data, message_factory.GetMessageClass(found.input_type)())
    answer = message_factory.GetMessageClass(found.output_type)
    with grpc.insecure_channel(served.address) as channel:
        call = channel.unary_unary(
            f"/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        assert call(request, timeout=10).workload.name == "test"


def _fetch(command: str, served: Served) -> None:
    url = command.split()[1].replace("localhost:8081", served.http_address)
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.status == 200


def test_a_failing_command_is_noticed(served: Served, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        run(served, ["/bin/sh", "-c", "cloudless get workloads no-such-thing"], tmp_path)


def test_what_installs_says_its_usage() -> None:
    done = subprocess.run([ROOT / "demo", "--help"], capture_output=True, text=True, check=False, timeout=30)
    assert "./demo --setup" in done.stdout
