"""Ports that can and cannot be had together."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from cloudless.domain.workload import WorkloadSpec


def spec(*ports: dict[str, Any], **fields: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"image": "web:1", "ports": ports, **fields})


def port(number: int, **fields: Any) -> dict[str, Any]:
    return {"container_port": number, **fields}


@pytest.mark.parametrize(
    "ports",
    [
        [port(80, publish=8088)],
        [port(80, publish=8088, host_port=8089)],
        [port(80, publish=8088), port(53, protocol="UDP", publish=8088)],
        [port(80, publish=8088), port(81, publish=8088, publish_address="127.0.0.2")],
        [port(80, publish=8088, publish_address="0.0.0.0"), port(81, publish=8089)],
    ],
)
def test_what_goes_together(ports: list[dict[str, Any]]) -> None:
    assert len(spec(*ports).ports) == len(ports)


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([port(80, publish=8088), port(81, publish=8088)], "publish 127.0.0.1:8088/tcp is given twice"),
        (
            [port(80, publish=8088, publish_address="0.0.0.0"), port(81, publish=8088)],
            "publish 127.0.0.1:8088/tcp conflicts with publish 0.0.0.0:8088/tcp",
        ),
        (
            [port(80, host_port=8088, publish=8088)],
            "host_port 127.0.0.1:8088/tcp conflicts with publish 127.0.0.1:8088/tcp",
        ),
        (
            [port(80, publish=8088), port(81, host_port=8088, host_address="0.0.0.0")],
            "host_port 0.0.0.0:8088/tcp conflicts with publish",
        ),
        ([port(80, publish=65536)], "less than or equal to 65535"),
        ([port(80, publish=-1)], "greater than or equal to 0"),
        ([port(80, publish="8088")], "valid integer"),
        ([port(80, publish=8088, publish_address="localhost")], "'localhost' is not an IPv4 address"),
        ([port(80, publish=8088, publish_address="999.0.0.1")], "'999.0.0.1' is not an IPv4 address"),
        ([port(80, host_port=8088, host_address="127.0.0.999")], "is not an IPv4 address"),
        ([port(80, publish_address="0.0.0.0")], "publish_address needs publish"),
    ],
)
def test_what_does_not(ports: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(*ports)
    assert words in str(caught.value)


def test_a_replica_in_the_hosts_network_publishes_nothing() -> None:
    with pytest.raises(ValidationError, match="publish needs replicas with a network of their own"):
        spec(port(80, publish=8088), security_context={"host_network": True})


def test_a_change_of_the_drain_time_is_no_revision_and_of_a_published_port_is_one() -> None:
    plain = spec(port(80, publish=8088))
    slower = spec(port(80, publish=8088), rollout={"drain_time": "1m"})
    assert plain.template_hash == slower.template_hash
    assert plain.template_hash != spec(port(80, publish=8089)).template_hash
