"""The house rules that no linter knows: sizes, names, banned calls, how modules open."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src" / "cloudless"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "types", "base", "misc"}
#: Generated code is not ours to shape.
FILES = sorted(path for path in SOURCE.rglob("*.py") if "api" not in path.relative_to(SOURCE).parts[:1])
#: Calls that belong to one room: dotted name -> rooms that may make it.
ONLY_IN = {
    "asyncio.create_task": {"aio"},
    "asyncio.ensure_future": {"aio"},
    "time.time": {"aio", "agent/logs/logger.py"},
    "time.sleep": set(),
    "datetime.datetime.now": {"aio"},
    "datetime.datetime.utcnow": set(),
    "random.random": set(),
    "uuid.uuid4": set(),
    "eval": set(),
    "exec": set(),
}


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return "?"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_sizes(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{relative(path)} has {lines} lines"
    for node in functions(parsed(path)):
        assert node.end_lineno is not None
        size = node.end_lineno - node.lineno + 1
        assert size <= MAX_FUNCTION_LINES, f"{relative(path)}:{node.lineno} {node.name} has {size} lines"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_names_say_what_a_file_holds(path: Path) -> None:
    assert path.stem not in BANNED_NAMES


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_modules_open_with_a_docstring(path: Path) -> None:
    if path.read_text().strip():
        assert ast.get_docstring(parsed(path)), f"{relative(path)} does not say what lives there"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_banned_calls(path: Path) -> None:
    where = relative(path)
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            allowed = ONLY_IN.get(dotted(node.func))
            if allowed is not None:
                at_home = any(where == place or where.startswith(f"{place}/") for place in allowed)
                assert at_home, f"{where}:{node.lineno} calls {dotted(node.func)}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ExceptHandler):
            names = dotted(node.type) if node.type is not None else "everything"
            silent = all(isinstance(line, ast.Pass) for line in node.body)
            broad = names in ("everything", "Exception", "BaseException")
            assert not (silent and broad), f"{relative(path)}:{node.lineno} swallows {names}"
