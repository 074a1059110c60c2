from __future__ import annotations

import pathlib

import pytest

from cloudless.api.containerd.runc.v1 import Options
from cloudless.containerd import runtimes
from cloudless.containerd.runtimes import RUNC, Missing, Runtime, probe


def test_a_node_with_nothing(tmp_path: pathlib.Path) -> None:
    found = probe(tmp_path, which=lambda name: None)
    assert all(isinstance(one, Missing) for one in found.values())
    assert not list(tmp_path.iterdir())


def test_a_node_with_everything(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "HYBRID_CGROUP", tmp_path / "no mount")
    found = probe(tmp_path / "wrappers", which=lambda name: f"/opt/{name}")
    assert found["runc"] == RUNC
    assert found["crun"] == Runtime("crun", binary="/opt/crun")
    wrapper = tmp_path / "wrappers" / "runsc"
    assert found["runsc"] == Runtime("runsc", binary=str(wrapper))
    assert wrapper.stat().st_mode & 0o777 == 0o755
    assert 'exec /opt/runsc --network=host "$@"' in wrapper.read_text()


def test_the_shim_is_told_the_binary() -> None:
    assert RUNC.options() is None
    options = Runtime("crun", binary="/opt/crun").options()
    assert options is not None
    assert options.type_url == "containerd.runc.v1.Options"
    assert Options.parse(options.value).binary_name == "/opt/crun"
