"""What needs the permission of a node's operator."""

from __future__ import annotations

import pytest

from cloudless.containerd import capabilities
from cloudless.domain.security import BASELINE_CAPABILITIES, CAPABILITIES, SecurityContext
from cloudless.domain.workload import Volume


def test_the_baseline_is_what_containers_have_anyway() -> None:
    assert {f"CAP_{name}" for name in BASELINE_CAPABILITIES} == set(capabilities.DEFAULT)
    assert {f"CAP_{name}" for name in CAPABILITIES} == set(capabilities.ALL)


@pytest.mark.parametrize("name", sorted(CAPABILITIES | {"ALL"}))
def test_whatever_is_more_needs_permission(name: str) -> None:
    needed = SecurityContext(capabilities_add=("CHOWN", name)).needs_permission
    assert ("capabilities_add" in needed) is (name not in BASELINE_CAPABILITIES)


@pytest.mark.parametrize("path", ["/dev/shm", "/process", "/system/x", "/srv/proc", "/etc"])
def test_other_places_may_be_mounted_over(path: str) -> None:
    assert Volume(name="a", mount_path=path, tmpfs={}).mount_path == path
