"""Every Python block in the pages runs, as a program of its own, against a real cluster."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from tests.docs.conftest import run
from tests.docs.pages import ROOT, Block, blocks
from tests.integration.program.served import Served

#: The quickstart's is run in its place, by test_quickstart.
EXAMPLES = [block for block in blocks("python") if block.page.name != "quickstart.md"]
#: Examples stand for the inside of an async function, with cloudless imported.
WRAPPER = """
import ast, asyncio, cloudless, inspect, sys
code = compile(sys.argv[1], sys.argv[2], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code, {"__name__": "__main__", "cloudless": cloudless})
if inspect.iscoroutine(result):
    asyncio.run(asyncio.wait_for(result, 60))
"""


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: block.place)
def test_it_runs(block: Block, served: Served, example_images: tuple[str, ...], tmp_path: Path) -> None:
    # What examples take to be there: a workload called "other", and no "web" of an earlier example.
    manifest = tmp_path / "other.yaml"
    manifest.write_text(f"kind: Workload\nname: other\nimage: {example_images[0]}\nreplicas: 0\n")
    run(served, ["cloudless", "apply", "-f", str(manifest)], tmp_path)
    try:
        run(served, [sys.executable, "-W", "error", "-c", WRAPPER, block.text, block.place], tmp_path)
    finally:
        names = run(served, ["cloudless", "get", "workloads", "-o", "name"], tmp_path).split()
        run(served, ["cloudless", "delete", *names, "--wait", "--ignore-missing"], tmp_path)


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_names_of_the_package_are_there(block: Block) -> None:
    import cloudless

    for node in ast.walk(ast.parse(block.text)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "cloudless"
        ):
            assert node.attr in {*cloudless.__all__, "sdk", "domain"}, f"{block.place}: cloudless.{node.attr}"


def test_blocks_are_found_in_the_readme() -> None:
    assert any(block.page == ROOT / "README.md" for block in EXAMPLES)
