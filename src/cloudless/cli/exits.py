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
#: ``exec``: we failed, not the program.
EXEC_FAILED = 125
INTERRUPTED = 130
#: ``diff``: there is a difference; errors are above 1.
DIFFERS = 1
DIFF_ERROR = 2
