"""Errors for a person: what happened, why, what to try, a stable code, and the exit code.

No stack trace ever reaches a user; CLOUDLESS_DEBUG=1 adds it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloudless.cli import exits
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain import errors
from cloudless.domain.errors import CloudlessError, Invalid

if TYPE_CHECKING:
    from cloudless.sdk.targets import Target

#: Field violations that are shown; the rest is counted.
MAX_SHOWN = 10
UNREACHABLE_CODE = "CL-8001"


def exit_code_of(error: BaseException) -> int:
    """The exit code for an error, as docs/cli.md lists them.

    >>> exit_code_of(errors.NotFound("workload web does not exist"))
    5
    """
    code = getattr(error, "code", "")
    by_code = {
        "CL-2000": exits.USAGE,
        "CL-6001": exits.ROLLOUT_FAILED,
        "CL-6002": exits.CANNOT_PLACE,
    }
    if code in by_code:
        return by_code[code]
    table: tuple[tuple[type[BaseException], int], ...] = (
        (errors.NotFound, exits.NOT_FOUND),
        (errors.AlreadyExists, exits.CONFLICT),
        (errors.Conflict, exits.CONFLICT),
        (errors.Denied, exits.DENIED),
        (errors.Unavailable, exits.UNREACHABLE),
        (errors.DeadlineExceeded, exits.TIMEOUT),
        (KeyboardInterrupt, exits.INTERRUPTED),
        (asyncio.CancelledError, exits.INTERRUPTED),
    )
    return next((number for kind, number in table if isinstance(error, kind)), exits.ERROR)


def show(error: BaseException, terminal: Terminal, target: Target | None = None) -> None:
    """Write an error to ``terminal`` (stderr)."""
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        terminal.line("interrupted")
        return
    if isinstance(error, OSError):
        what = f"{error.filename}: " if isinstance(error.filename, str) else ""
        why = error.strerror[:1].lower() + error.strerror[1:] if error.strerror else str(error)
        error = CloudlessError(f"cannot read or write: {neutral(what + why)}")
    if not isinstance(error, CloudlessError):
        what = neutral(f"{type(error).__name__}: {error}")
        error = errors.Fatal(
            f"this is a bug in cloudless: {what}", hint="CLOUDLESS_DEBUG=1 shows where; please report it"
        )
    for text in _lines(error, terminal, target):
        terminal.line(text)


def _lines(error: CloudlessError, terminal: Terminal, target: Target | None) -> list[str]:
    label = terminal.paint("error:", "red", "bold")
    said = [part for text in _what(error) for part in _folded(text, terminal)]
    lines = [f"{label} {text}" if index == 0 else f"  {text}" for index, text in enumerate(said)]
    if error.code == UNREACHABLE_CODE and target is not None and target.address in error.message:
        # Only an address that was not just typed needs an explanation.
        origin = f"context {target.context!r} from {target.source}" if target.context else target.source
        if target.source not in ("argument", "default"):
            lines.append(f"  address from: {neutral(origin)}")
    for refusal in getattr(error, "refusals", ()):
        lines.append("  " + neutral(f"{refusal.node}: {refusal.reason}" if refusal.node else refusal.reason))
    explanation = getattr(error, "explanation", None)
    if explanation is not None:
        from cloudless.cli.output.rollouts import failure_lines

        lines += [f"  {text}" for text in failure_lines(explanation, terminal, said=error.message)]
    for index, hint in enumerate((error.hint or _hint(error)).splitlines()):
        lines.append(f"  {terminal.paint('try:', 'bold') if not index else '    '} {neutral(hint)}")
    lines.append(f"  {terminal.paint('code: ' + error.code, 'dim')}")
    return lines


def _what(error: CloudlessError) -> list[str]:
    """The message; one line per field violation when there are several."""
    violations = error.violations if isinstance(error, Invalid) else ()
    if len(violations) < 2:
        return [neutral(text) for text in (error.message or type(error).__name__).splitlines()] or [""]
    shown = [f"{neutral(where)}: {neutral(what)}" for where, what in violations[:MAX_SHOWN]]
    if len(violations) > MAX_SHOWN:
        shown.append(f"and {len(violations) - MAX_SHOWN} more")
    return [f"{len(violations)} fields are wrong", *shown]


def _folded(text: str, terminal: Terminal) -> list[str]:
    """A long sentence as lines that fit a terminal; a pipe gets it whole."""
    if not terminal.is_terminal or len(text) <= terminal.width - len("error: "):
        return [text]
    import textwrap

    return textwrap.wrap(
        text, terminal.width - len("error: "), break_long_words=False, break_on_hyphens=False
    )


def _hint(error: CloudlessError) -> str:
    if error.code == UNREACHABLE_CODE:
        return "start it with cloudless serve, or name another one (--address, --agent-address)"
    if isinstance(error, errors.Unavailable):
        return "again in a moment"
    return ""
