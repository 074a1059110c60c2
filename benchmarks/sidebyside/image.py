"""The image of all measured containers: the machine's busybox, nothing is pulled."""

from __future__ import annotations

import importlib.util
from pathlib import Path

REFERENCE = "localhost/bench/busybox:1"
#: Ends at once when it is told to, and does nothing else.
COMMAND = ("sh", "-c", 'trap "exit 0" TERM; sleep 100000 & wait')


def write(path: Path) -> Path:
    """Write a docker archive; returns its path."""
    tool = Path(__file__).parents[2] / "tools" / "demo_image.py"
    spec = importlib.util.spec_from_file_location("demo_image", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_archive(path, REFERENCE, "#!/bin/sh\n")
    return path
