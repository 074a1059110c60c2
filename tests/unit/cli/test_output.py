from __future__ import annotations

import io

import pytest

from cloudless.cli.output.paths import custom_columns, find, template
from cloudless.cli.output.table import Cell, lines_of
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral

ROOT = {
    "name": "web",
    "labels": {"app.io/x": "y"},
    "n": 3,
    "ok": True,
    "items": [{"name": "a", "ready": True, "n": 1}, {"name": "b", "ready": False, "n": 2}],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".name", ["web"]),
        ("name", ["web"]),
        ("$.items[*].name", ["a", "b"]),
        (".items[0].name", ["a"]),
        (".items[-1].name", ["b"]),
        (".items[9].name", []),
        (".labels['app.io/x']", ["y"]),
        (".items[?(@.ready==true)].name", ["a"]),
        ('.items[?(@.name!="a")].n', [2]),
        (".items[?(@.n==2)].name", ["b"]),
        (".labels.*", ["y"]),
        (".nope.nothing", []),
        (".", [ROOT]),
    ],
)
def test_find(path, found):
    assert find(path, ROOT) == found


@pytest.mark.parametrize(
    "path", [".items[", ".a..b", "a b", ".items[?(@.x)]", "{", ".x[1:2]", "__import__('os')"]
)
def test_what_is_not_understood_is_a_usage_error(path):
    with pytest.raises(UsageError):
        template(path, ROOT)


def test_templates():
    assert template('{.name}: {.n}{"\\n"}{.ok}', ROOT) == "web: 3\ntrue"
    assert template("{.items[*].name}", ROOT) == "a b"
    assert template("{.labels}", ROOT) == '{"app.io/x":"y"}'


def test_custom_columns():
    titles, rows = custom_columns('A:.name,B:.items[?(@.name=="a")].n,C:.no', [ROOT])
    assert (titles, rows) == (["A", "B", "C"], [["web", "1", "-"]])
    with pytest.raises(UsageError, match="is not TITLE:path"):
        custom_columns("A", [])


def terminal(encoding: str = "utf-8") -> Terminal:
    return Terminal(io.TextIOWrapper(io.BytesIO(), encoding=encoding), {})


def test_columns_are_straight_and_cells_harmless():
    rows = [["a\x1b[2J", Cell("x", "red")], ["日本", ""]]
    assert lines_of(["NAME", "LAST"], rows, terminal()) == ["NAME      LAST", "a\\x1b[2J  x", "日本      -"]


def test_neutral():
    assert neutral("tab\tand\nline") == "tab\\tand\\nline"
    assert neutral("tab\tstays", tabs=True) == "tab\tstays"
    assert neutral("\u202eevil \x9b31m") == "\\u202eevil \\x9b31m"
    assert neutral("ü 日本 \U0001f600") == "ü 日本 \U0001f600"


def test_a_terminal_that_knows_only_ascii():
    plain = terminal("ascii")
    plain.write("ü ok\n")
    plain.stream.flush()
    assert plain.stream.buffer.getvalue() == b"? ok\n"
