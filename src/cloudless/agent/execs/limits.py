"""Limits of programs run by people, with their units: the one page to read or to tune."""

from __future__ import annotations

KIB = 1024

#: Programs whose caller waits for them, buffered or not, that run on this node at the same
#: time: more than one caller of the coordinator may have (256), so that others still get in.
MAX_PROGRAMS = 512
#: Of these, starts under way at the same time: each costs an OCI runtime of 10 MiB.
CONCURRENT_STARTS = 8
#: Detached programs that run on this node at the same time: of one caller, and of all.
MAX_DETACHED_OF_CALLER = 128
MAX_DETACHED = 256
#: Callers that are attached to replicas of this node at the same time.
MAX_ATTACHED = 512
#: Pieces of output, of 256 KiB at most, that wait for the caller; then the program waits.
WAITING_PIECES = 1
#: Largest piece of input in one message.
MAX_STDIN_BYTES = 256 * KIB
#: Lines of output that an attached caller may begin with.
MAX_TAIL_LINES = 10_000
#: How long the node may take to note how an attached program ended.
EXIT_KNOWN_S = 10.0
#: How long the caller may take to say what it wants.
START_S = 10.0
#: Longest time that a program may be given; without one it has no limit.
MAX_TIMEOUT_S = 7 * 24 * 3600.0
#: Rows and columns of a terminal when none are given, and at most.
DEFAULT_SIZE = (24, 80)
MAX_SIZE = 65535
#: How much of a program's command a list shows: with everything else about all programs of a node
#: it fits into one message of 1 MiB.
SHOWN_COMMAND_BYTES = 512
SHOWN_USER_CHARS = 64
MAX_LISTED = 800
#: Between SIGTERM and SIGKILL when somebody ends a program and names no other time, and at most.
KILL_GRACE_S = 5.0
MAX_KILL_GRACE_S = 600.0
#: How long a question waits until it is known what an earlier life of the agent left.
LOOKED_S = 3.0
#: How long one that was ended may be listed after the answer that says so.
LISTED_SOON_S = 2.0
