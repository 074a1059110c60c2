from __future__ import annotations

import pathlib
import tomllib

from cloudless.containerd.daemonconfig import DaemonLayout, daemon_environment, render_config


def test_everything_lies_in_one_folder() -> None:
    layout = DaemonLayout(pathlib.Path('/data/with "quotes" and \\'))
    config = tomllib.loads(render_config(layout, oom_score=-999))
    assert config["oom_score"] == -999
    assert config["grpc"]["address"] == str(layout.socket)
    for value in (config["root"], config["state"]):
        assert pathlib.Path(value).parent == layout.folder
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["cni"]["conf_dir"] == str(layout.folder / "cni")
    assert cri["registry"]["config_path"] == str(layout.registries)
    assert "io.containerd.internal.v1.restart" in config["disabled_plugins"]
    assert "oom_score" not in tomllib.loads(render_config(layout, oom_score=None))


def test_our_secrets_stay_ours() -> None:
    passed = daemon_environment({"PATH": "/x", "AWS_SECRET": "s", "NOTIFY_SOCKET": "n", "HTTP_PROXY": "p"})
    assert passed.keys() == {"PATH", "HTTP_PROXY"}
    assert passed["PATH"].startswith("/x:")
    assert "/usr/sbin" in daemon_environment({})["PATH"]
