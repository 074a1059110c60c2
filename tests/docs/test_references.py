"""The tools that write the reference pages: they notice what they are there to notice."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from types import ModuleType

import pytest
from tests.docs.pages import ROOT

TOOLS = ("generate_api_docs", "generate_cli_docs", "generate_error_docs", "draw_diagrams", "draw_timelines")


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", TOOLS)
def test_the_pages_are_current(name: str) -> None:
    tool = ROOT / "tools" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, tool, "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_meanings_of_one_code_are_noticed() -> None:
    tool = loaded("generate_error_docs")
    found = list(tool.collected())
    assert tool.contradictions(found) == []
    first = found[0]
    other = tool.Found(first.code, "Other", "Something else.", "", 1, "elsewhere.py")
    assert any(first.code in line for line in tool.contradictions([*found, other]))
    assert tool.contradictions(found[1:]) != [] or sum(one.code == first.code for one in found) > 1


def test_the_api_page_holds_every_message_and_field() -> None:
    tool = loaded("generate_api_docs")
    text = tool.reference()
    for file in tool.described():
        for service in file.proto.service:
            assert f"## {service.name}\n" in text
            assert all(f"### {method.name}\n" in text for method in service.method)
        for name, one in file.types():
            if not one.is_map_entry:
                assert f"# {one.title}\n" in text, name
                names = [field.name for field in getattr(one.proto, "field", ())]
                assert all(f"| `{field}` |" in text for field in names)
