"""The exit codes that scripts may rely on (docs/cli.md lists them)."""

from __future__ import annotations

OK = 0
ERROR = 1
USAGE = 2
ROLLOUT_FAILED = 3
CANNOT_PLACE = 4
NOT_FOUND = 5
CONFLICT = 6
DENIED = 7
UNREACHABLE = 8
TIMEOUT = 124
#: Why a program ended that used up its time (``ExecExit.reason``).
TIMED_OUT = "TimedOut"
#: ``exec``: we failed, not the program.
EXEC_FAILED = 125
INTERRUPTED = 130
#: ``diff``: there is a difference; errors are above 1.
DIFFERS = 1
DIFF_ERROR = 2


def of_program(exit_code: int, reason: str) -> int:
    """Our exit code for a program in a replica, and why it ended when that was not its own doing.

    >>> of_program(143, "TimedOut"), of_program(3, "")
    (124, 3)
    """
    return TIMEOUT if reason == TIMED_OUT else exit_code
