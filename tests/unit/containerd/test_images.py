from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from cloudless.containerd.errors import ImageNotFound, InvalidImage
from cloudless.containerd.imageconfig import ImageConfig, parse_config
from cloudless.containerd.images import chain_id, choose_manifest, is_tag, manifest_facts


def test_chain_ids_follow_the_image_spec() -> None:
    a, b, c = ("sha256:" + letter * 64 for letter in "abc")
    ab = f"sha256:{hashlib.sha256(f'{a} {b}'.encode()).hexdigest()}"
    assert chain_id([]) == ""
    assert chain_id([a]) == a
    assert chain_id([a, b]) == ab
    assert chain_id([a, b, c]) == f"sha256:{hashlib.sha256(f'{ab} {c}'.encode()).hexdigest()}"


def entry(os: str, architecture: str, digest: str) -> dict[str, Any]:
    return {"digest": digest, "platform": {"os": os, "architecture": architecture}}


def test_the_manifest_for_this_machine() -> None:
    entries = [entry("windows", "amd64", "w"), entry("linux", "arm64", "a"), entry("linux", "amd64", "x")]
    assert choose_manifest(entries, "amd64") == "x"
    assert choose_manifest(entries, "arm64") == "a"
    with pytest.raises(ImageNotFound, match="linux/arm64"):
        choose_manifest(entries, "riscv64")
    assert choose_manifest([{"digest": "any"}, *entries], "riscv64") == "any"


@pytest.mark.parametrize("manifests", [None, 5, "x", [5], [{}], [{"digest": 5}]])
def test_malformed_indexes(manifests: object) -> None:
    with pytest.raises(InvalidImage):
        choose_manifest(manifests, "amd64")


@pytest.mark.parametrize(
    "manifest",
    [{}, {"config": 5, "layers": []}, {"config": {"digest": "d"}, "layers": []}, {"config": {}, "layers": 5}],
)
def test_malformed_manifests(manifest: dict[str, Any]) -> None:
    with pytest.raises(InvalidImage):
        manifest_facts(manifest)


def test_sizes_are_added() -> None:
    manifest = {"config": {"digest": "d", "size": 1}, "layers": [{"size": 2}, {"size": 3}]}
    assert manifest_facts(manifest) == ("d", 6)


def test_a_whole_config() -> None:
    body = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/run"],
            "Cmd": ["a", "b"],
            "Env": ["A=1"],
            "User": "web",
            "WorkingDir": "/w",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
            "Volumes": {"/v": {}},
            "Labels": {"containerd.io/restart.loguri": "binary:///evil"},
        },
        "rootfs": {"diff_ids": ["sha256:x"]},
    }
    config, diff_ids = parse_config(json.dumps(body).encode())
    assert config == ImageConfig(
        entrypoint=("/run",),
        command=("a", "b"),
        env=("A=1",),
        user="web",
        working_dir="/w",
        stop_signal="SIGQUIT",
        ports=("443/tcp", "80/tcp"),
        volumes=("/v",),
        architecture="amd64",
        os="linux",
    )
    assert diff_ids == ("sha256:x",)
    assert "loguri" not in repr(config)


def test_an_empty_config_is_fine() -> None:
    assert parse_config(b'{"config": null}') == (ImageConfig(), ())


@pytest.mark.parametrize(
    "body",
    [
        "not json",
        "[]",
        '{"config": []}',
        '{"config": {"Cmd": "x"}}',
        '{"config": {"Cmd": [5]}}',
        '{"config": {"Cmd": ["a\\u0000b"]}}',
        '{"config": {"User": 5}}',
        '{"config": {"User": "a\\u0000"}}',
        '{"config": {"ExposedPorts": ["80"]}}',
        '{"rootfs": {"diff_ids": 5}}',
        json.dumps({"rootfs": {"diff_ids": ["x"] * 500}}),
    ],
)
def test_malformed_configs(body: str) -> None:
    with pytest.raises(InvalidImage):
        parse_config(body.encode())


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ((), (), ("/entry", "default")),
        ((), ("x",), ("/entry", "x")),
        (("/other",), (), ("/other",)),
        (("/other",), ("x",), ("/other", "x")),
    ],
)
def test_commands_and_arguments(
    command: tuple[str, ...], args: tuple[str, ...], argv: tuple[str, ...]
) -> None:
    assert ImageConfig(entrypoint=("/entry",), command=("default",)).argv(command, args) == argv


def test_names_that_people_gave() -> None:
    assert is_tag("docker.io/library/nginx:latest")
    assert not is_tag("docker.io/library/nginx@sha256:00")
    assert not is_tag("sha256:00")
