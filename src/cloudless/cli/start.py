"""From the words of a command line to its exit code.

Parses, imports the verb, runs it in an event loop, and turns every way it can end into a
text on stderr and an exit code.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
from collections.abc import Sequence

from cloudless.cli import exits
from cloudless.cli.catalog import LEFT_AT_WILL, ROLE_VERBS
from cloudless.cli.parsing import ShowHelp, parse
from cloudless.cli.terminal import Terminal


def run_command(argv: Sequence[str] | None) -> int:
    """Run one command line; see ``cloudless.cli.main``.

    Without ``argv`` this is the whole process, which then ends here and now: taking the
    interpreter down module by module would cost a sixth of a ``get``.
    """
    if argv is not None:
        return _run(list(argv))
    _fill_standard_streams()
    words = sys.argv[1:]
    code = _run(words)
    if "serve" not in words and not os.environ.get("CLOUDLESS_DEBUG"):
        _end_process(code)
    return code


def _fill_standard_streams() -> None:
    """Lead standard streams that are closed nowhere.

    Else the next socket or file takes such a number, and what is meant for a person goes there.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            # Those below are open: this is the lowest number that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))


def _end_process(code: int) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        code = code or exits.ERROR
    os._exit(code)


def _run(words: list[str]) -> int:
    gc.disable()  # nothing to collect while modules are imported
    try:
        return _guarded(words)
    except BrokenPipeError:
        # The reader of our output has left (head, less): that is its right.
        _silence_stdout()
        return exits.OK
    finally:
        gc.enable()


def _guarded(words: list[str]) -> int:
    stderr = Terminal(sys.stderr, os.environ)
    context = None
    verb = ""
    try:
        arguments = parse(words)
        verb = arguments.verb
        if verb in ROLE_VERBS:
            from cloudless.cli import serve

            gc.enable()
            return serve.reset(arguments.rest) if verb == "reset" else serve.serve(arguments.rest)
        from cloudless.aio.clock import SystemClock
        from cloudless.cli.context import Context

        context = Context(arguments, SystemClock())
        module = importlib.import_module(f"cloudless.cli.verbs.{arguments.module}")
        gc.enable()
        code = asyncio.run(module.run(context))
        sys.stdout.flush()
        return int(code)
    except ShowHelp as help_text:
        sys.stdout.write(help_text.text)
        sys.stdout.flush()
        return exits.OK
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as error:
        return _ended_badly(error, verb, stderr if context is None else context.err, context)


def _ended_badly(error: BaseException, verb: str, stderr: Terminal, context: object) -> int:
    from cloudless.cli import problems

    if os.environ.get("CLOUDLESS_DEBUG") not in (None, "", "0"):
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    sys.stdout.flush()
    if verb in LEFT_AT_WILL and isinstance(error, KeyboardInterrupt):
        return exits.OK
    problems.show(error, stderr, getattr(context, "known_target", None))
    code = problems.exit_code_of(error)
    if verb in ("exec", "attach") and not _kills(context) and code not in (exits.USAGE, exits.INTERRUPTED):
        return exits.EXEC_FAILED
    if verb == "diff" and code == exits.DIFFERS:
        return exits.DIFF_ERROR
    return code


def _kills(context: object) -> bool:
    """``exec --kill``: there is no program whose exit code ours could be taken for."""
    return bool(getattr(getattr(context, "arguments", None), "kill", ""))


def _silence_stdout() -> None:
    """Keep the interpreter from complaining about the broken pipe once more at its end."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return
