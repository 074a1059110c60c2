"""What is checked, session by session; ``./test`` runs them with everything installed.

Sessions use the environment that is active (``./test`` makes ``.venv`` from the lock
file), so that nothing is resolved or installed twice.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "unit"]


@nox.session
def lint(session: nox.Session) -> None:
    """Style, layers between rooms, protos."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("buf", "lint")


@nox.session
def types(session: nox.Session) -> None:
    """Static types, strict."""
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Pure planners and whole roles in memory; no root, no daemons."""
    session.run("pytest", "tests/unit", "src", "--doctest-modules", "-q", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Real etcd, containerd, kernel; needs root."""
    session.run("pytest", "tests/integration", "-q", *session.posargs)


@nox.session
def protos(session: nox.Session) -> None:
    """Generate ``src/cloudless/api``; with ``-- --check`` only compare."""
    session.run("python", "tools/generate_protos.py", *session.posargs)


@nox.session
def diagrams(session: nox.Session) -> None:
    """Draw the state diagrams of docs/architecture.md from the tables; ``-- --check`` compares."""
    session.run("python", "tools/draw_diagrams.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Check that the reference pages match the code and that examples run."""
    session.run("python", "tools/generate_cli_docs.py", "--check")
    session.run("python", "tools/generate_api_docs.py", "--check")
    session.run("python", "tools/generate_error_docs.py", "--check")
    session.run("python", "tools/draw_diagrams.py", "--check")
    session.run("pytest", "tests/docs", "--doctest-modules", "-q", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure everything in ``benchmarks/`` side by side with the floors."""
    session.run("python", "benchmarks/run.py", *session.posargs)
