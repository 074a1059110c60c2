"""One real cluster for all examples that are run; a missing part is a skip with its reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import ROOT
from tests.integration.conftest import need_containerd
from tests.integration.program.served import Served, environment

#: The images that the examples of the SDK and the README take for granted.
EXAMPLE_IMAGES = ("web:1.4", "web:1.5")
LIMIT_S = 120.0


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    need_containerd()
    if shutil.which("busybox") is None:
        pytest.skip("needs busybox-static")
    # Not below pytest's folders: the path of a socket must be short.
    parent = Path(tempfile.mkdtemp(prefix="cl-docs-"))
    program = Served(parent / "data")
    try:
        program.start()
        yield program
    finally:
        program.end()
        shutil.rmtree(parent)


@pytest.fixture(scope="session")
def example_images(served: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The example images, under their names, on the node."""
    for name in EXAMPLE_IMAGES:
        archive = tmp_path_factory.mktemp("image") / "image.tar"
        subprocess.run([sys.executable, ROOT / "tools/demo_image.py", archive, name], check=True, timeout=60)
        run(served, ["cloudless", "image", "import", str(archive)], archive.parent)
    return EXAMPLE_IMAGES


def run(served: Served, command: list[str], folder: Path) -> str:
    """Run a command as a user of ``served`` would, to its good end; its output."""
    settings = environment(CLOUDLESS_ADDRESS=served.address, CLOUDLESS_AGENT_ADDRESS=served.agent_address)
    settings["PATH"] = f"{Path(sys.executable).parent}:{settings['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
