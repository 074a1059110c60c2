"""The command line: ``cloudless VERB ...``.

``main`` finds the verb in ``catalog`` and imports only what that verb needs: a plain
``get`` has to end within 150 ms as a whole process (docs/adr/0003-cli-start.md). Each
verb is one module of ``verbs``; ``output`` writes objects, ``problems`` turns errors into
text and exit codes. Everything goes through the SDK.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of docs/cli.md. Never raises but for a broken stdout."""
    from cloudless.cli.start import run_command

    return run_command(argv)
