from __future__ import annotations

import pytest

from cloudless.domain.errors import Invalid
from cloudless.sdk.targets import Target, find_target

FILE = """
current = "prod"
[contexts.prod]
address = "10.0.0.5:8080"
namespace = "shop"
[contexts.test]
address = "10.0.0.6:8080"
"""


@pytest.fixture
def environ(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(FILE)
    return {"CLOUDLESS_CONFIG": str(path), "HOME": str(tmp_path)}


def test_who_decides(environ, tmp_path):
    path = environ["CLOUDLESS_CONFIG"]
    empty = {"HOME": str(tmp_path)}
    assert find_target(environ=empty) == Target("127.0.0.1:8080", "default", "", "default")
    assert find_target(environ=environ) == Target("10.0.0.5:8080", "shop", "prod", path)
    assert find_target(context="test", environ=environ) == Target("10.0.0.6:8080", "default", "test", path)
    named = environ | {"CLOUDLESS_CONTEXT": "test"}
    assert find_target(environ=named).address == "10.0.0.6:8080"
    direct = environ | {"CLOUDLESS_ADDRESS": "h:1", "CLOUDLESS_NAMESPACE": "ns"}
    assert find_target(environ=direct) == Target("h:1", "ns", "", "CLOUDLESS_ADDRESS")
    assert find_target(context="test", environ=direct).address == "10.0.0.6:8080"
    assert find_target("x:2", environ=direct) == Target("x:2", "ns", "", "argument")


def test_the_usual_place(tmp_path):
    folder = tmp_path / ".config" / "cloudless"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(FILE)
    assert find_target(environ={"HOME": str(tmp_path)}).context == "prod"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("current = ", "not valid TOML"),
        ("curent = 'x'", "unknown key 'curent'"),
        ("current = 'nope'", "context 'nope' is not in"),
        ("current = 1", "current must be a text"),
        ("[contexts]\nprod = 1", "contexts.prod must be a table"),
        ("[contexts.prod]\nadress = 'x'", "unknown key 'adress' in contexts.prod"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(Invalid, match=message) as caught:
        find_target(environ={"CLOUDLESS_CONFIG": str(path)})
    assert str(path) in caught.value.message
