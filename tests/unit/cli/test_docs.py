"""docs/cli.md and docs/sdk.md say what is so."""

from __future__ import annotations

import asyncio
import pathlib
import re
import subprocess
import sys

import pytest

import cloudless

ROOT = pathlib.Path(__file__).parents[3]


def test_the_reference_of_the_command_line_is_current():
    tool = ROOT / "tools" / "generate_cli_docs.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_manifest_in_the_docs_is_one():
    from cloudless.sdk.manifest.reading import read_text

    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "cli.md").read_text(), re.DOTALL)
    (manifest,) = read_text(text, "docs/cli.md")
    assert manifest.workload.spec.ports[0].publish == 8088


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sdk.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_of_the_sdk_run(served, example, monkeypatch):
    served.do(served.fake.log, _line())
    monkeypatch.setenv("CLOUDLESS_ADDRESS", served.address)
    served.later(0.3, served.fake.put, _workload(served))
    body = "\n".join(f"    {line}" for line in example.splitlines())
    space = {"cloudless": cloudless, "asyncio": asyncio}
    exec(f"async def example():\n{body}", space)
    asyncio.run(asyncio.wait_for(space["example"](), 20))


def _line():
    from fake_coordinator import NOW

    from cloudless import api

    return api.LogEntry(at=NOW, line=b"ready", replica="web/0", container_id="c")


def _workload(served):
    from fake_coordinator import ready_status

    wanted = cloudless.Workload("other", namespace="default", image="other:1").message
    wanted.id, wanted.generation = "idother", 1
    wanted.status = ready_status(wanted)
    return wanted


def test_every_public_name_is_documented():
    text = (ROOT / "docs" / "sdk.md").read_text()
    missing = [name for name in cloudless.__all__ if not name.startswith("_") and name not in text]
    assert missing == []
