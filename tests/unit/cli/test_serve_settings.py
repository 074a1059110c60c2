"""Flags win over the environment, which wins over the file; wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudless.cli.serve_settings import SETTINGS, resolve
from cloudless.domain.errors import Invalid


def test_everything_has_a_default() -> None:
    assert set(resolve([], {})) == {setting.name for setting in SETTINGS}


def test_the_nearer_origin_wins(tmp_path: Path) -> None:
    file = tmp_path / "cloudless.toml"
    file.write_text("region = 'file'\nzone = 'file'\nnode-name = 'file'\nlabel = ['a=b']\n")
    found = resolve(
        ["--config", str(file), "--region", "flag"], {"CLOUDLESS_ZONE": "env", "CLOUDLESS_REGION": "env"}
    )
    assert (found["region"], found["zone"], found["node_name"]) == ("flag", "env", "file")
    assert found["label"] == ("a=b",)


def test_an_address_to_publish_at_is_one() -> None:
    from cloudless.cli.serve import _config

    given = resolve(["--publish-address", "10.0.0.5"], {})
    assert _config("agent", given).publish_addresses == ("10.0.0.5",)
    with pytest.raises(Invalid, match=r"--publish-address\[0\]: .* is not an IPv4 address"):
        _config("agent", resolve(["--publish-address", "here"], {}))
    with pytest.raises(Invalid, match=r"--host-path\[0\]: must be an absolute path"):
        _config("agent", resolve(["--host-path", "here"], {}))


def test_lists_come_from_repeated_flags_or_commas() -> None:
    assert resolve(["--label", "a=b", "--label", "c=d"], {})["label"] == ("a=b", "c=d")
    assert resolve([], {"CLOUDLESS_LABEL": "a=b, c=d"})["label"] == ("a=b", "c=d")


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("regoin = 'x'", "regoin", "not a known setting"),
        ("region = 5", "region", "must be a text"),
        ("role = 'king'", "role", "must be one of"),
        ("label = 'a=b'", "label", "list of texts"),
        ("region = ", "--config", "not TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, path: str, words: str) -> None:
    file = tmp_path / "cloudless.toml"
    file.write_text(text)
    with pytest.raises(Invalid) as caught:
        resolve(["--config", str(file)], {})
    assert path in caught.value.violations[0].path
    assert words in caught.value.violations[0].description


def test_a_missing_file_and_a_wrong_variable_are_named() -> None:
    with pytest.raises(Invalid, match="cannot read"):
        resolve(["--config", "/nonexistent/cloudless.toml"], {})
    with pytest.raises(Invalid, match="CLOUDLESS_ALLOW_PRIVILEGED"):
        resolve([], {"CLOUDLESS_ALLOW_PRIVILEGED": "maybe"})
