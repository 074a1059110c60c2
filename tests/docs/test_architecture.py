"""What architecture.md says of the code is so: the functions it names, the rooms, the keys."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
SOURCE = ROOT / "src" / "cloudless"
ROWS = [
    (file, function)
    for file, functions in re.findall(r"^\| `([\w/]+\.py)` \| (.+?) \| ", PAGE, re.MULTILINE)
    for function in re.findall(r"`([\w.]+)`", functions)
]


def functions_of(path: Path) -> set[str]:
    """Functions and methods of a module, as "name" and "Class.name"."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(f"{node.name}.{inner.name}")
    return found


def test_there_are_rows() -> None:
    assert len(ROWS) > 30


@pytest.mark.parametrize(("file", "function"), ROWS)
def test_functions_of_the_flow_exist(file: str, function: str) -> None:
    assert function in functions_of(SOURCE / file)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", PAGE))))
def test_files_exist(path: str) -> None:
    assert (SOURCE / path).exists() or (ROOT / path).exists()


def test_layers_are_those_that_lint_checks() -> None:
    shown = re.search(r"```\n(cli\n.*?)```", PAGE, re.DOTALL)
    assert shown is not None
    page = [re.findall(r"[a-z]{3,}", re.sub(r"\(.*?\)|'\|'.*", "", line)) for line in shown[1].splitlines()]
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    layers = config["importlinter:contract:layers"]["layers"].split("\n")
    checked = [re.findall(r"cloudless\.(\w+)", line) for line in layers if line.strip()]
    assert page == checked


def test_every_room_is_described() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    described = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE)))
    )
    assert rooms <= described


def test_keys_are_those_of_the_store() -> None:
    layout = (SOURCE / "coordinator" / "state" / "keys.py").read_text()
    table = PAGE[PAGE.index("| fact | key |") :].split("\n\n")[0]
    for key in re.findall(r"`([a-z]+)/", table):
        assert f"/cloudless/v1/{key}/" in layout
