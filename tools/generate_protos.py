"""Compile ``protos/`` into ``src/cloudless/api/``: run after every change of a .proto file.

The proto package ``cloudless.api`` becomes the Python package of that name itself;
every other package (``containerd.*``, ``runtime.v1``, ``google.protobuf``) becomes a
package below it. The descriptors of ``cloudless.api`` are kept beside the code for
server reflection. With ``--check`` nothing is written: the exit code is 1 when what
is committed is not what the protos say.

    .venv/bin/python tools/generate_protos.py [--check]
"""

from __future__ import annotations

import argparse
import importlib.resources
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUTPUT = ROOT / "src" / "cloudless" / "api"
OWN_PACKAGE = pathlib.PurePosixPath("cloudless/api")
DESCRIPTORS = "descriptors.binpb"
OWN_DOC = '"""Generated messages and services of the Cloudless API; see tools/generate_protos.py."""\n'

#: Relative imports of the own package lose the two levels that its folder loses.
RELATIVE_IMPORT = re.compile(r"^(\s*from )\.\.\.(?=[A-Za-z_ ])", re.MULTILINE)
IMPORT_FROM_ROOT = re.compile(r"^(\s*from )\.\.\. (?=import )", re.MULTILINE)


def main() -> int:
    """Write or check the generated tree; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="exit with 1 if the output is not current")
    arguments = parser.parse_args()
    wanted = generate()
    present = committed()
    stale = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    if not arguments.check:
        write(wanted, stale)
    for path in stale:
        state = "differs" if arguments.check else "removed" if path not in wanted else "written"
        sys.stderr.write(f"{OUTPUT.relative_to(ROOT) / path}: {state}\n")
    return 1 if arguments.check and stale else 0


def generate() -> dict[str, bytes]:
    """Path below the output folder -> content, for everything that shall be there."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    if not sources:
        raise SystemExit(f"no .proto files under {PROTOS}")
    with tempfile.TemporaryDirectory() as folder:
        raw = pathlib.Path(folder)
        protoc(
            sources,
            f"--python_betterproto2_out={raw}",
            "--python_betterproto2_opt=client_generation=async",
            "--python_betterproto2_opt=server_generation=async",
            working_folder=raw,
        )
        files = {path.relative_to(raw): path.read_bytes() for path in raw.rglob("*") if path.is_file()}
    tree = lay_out(files)
    own = [source for source in sources if source.startswith(f"{OWN_PACKAGE}/")]
    tree[DESCRIPTORS] = describe(own) if own else b""
    return tree


def protoc(sources: list[str], *options: str, working_folder: pathlib.Path) -> None:
    """Run the compiler of grpc_tools with the tools of this environment in its path."""
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    bin_folder = pathlib.Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", f"-I{well_known}", *options, *sources],
        check=False,
        cwd=working_folder,  # so that the formatter finds nobody's configuration
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ.get('PATH', '')}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("Writing ")]
    sys.stderr.write("".join(f"{line}\n" for line in said))
    if done.returncode:
        raise SystemExit(done.returncode)


def lay_out(files: dict[pathlib.Path, bytes]) -> dict[str, bytes]:
    """Move the own package to the top and leave out the folders that it came from.

    >>> tree = lay_out({pathlib.Path("cloudless/api/__init__.py"): b"from ...google import x"})
    >>> tree["__init__.py"].decode()
    'from .google import x'
    """
    own_init = pathlib.Path(OWN_PACKAGE) / "__init__.py"
    dropped = {pathlib.Path("__init__.py"), pathlib.Path("cloudless/__init__.py"), own_init}
    tree = {path.as_posix(): content for path, content in files.items() if path not in dropped}
    own = files.get(own_init, b"").decode()
    own = RELATIVE_IMPORT.sub(r"\1.", IMPORT_FROM_ROOT.sub(r"\1. ", own))
    tree["__init__.py"] = (own or OWN_DOC).encode()
    return tree


def describe(sources: list[str]) -> bytes:
    """The descriptors of the own protos with all they import, as server reflection wants them."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / DESCRIPTORS
        protoc(
            sources,
            f"--descriptor_set_out={target}",
            "--include_imports",
            working_folder=pathlib.Path(folder),
        )
        return target.read_bytes()


def committed() -> dict[str, bytes]:
    """What lies in the output folder now, without the interpreter's caches."""
    return {
        path.relative_to(OUTPUT).as_posix(): path.read_bytes()
        for path in OUTPUT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def write(wanted: dict[str, bytes], stale: list[str]) -> None:
    """Bring the output folder to ``wanted``, touching only what is stale."""
    for name in stale:
        path = OUTPUT / name
        content = wanted.get(name)
        if content is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


if __name__ == "__main__":
    raise SystemExit(main())
