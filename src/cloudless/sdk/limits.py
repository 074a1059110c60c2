"""Every limit of the SDK, with its unit."""

from __future__ import annotations

#: Deadline of a call that names none.
CALL_TIMEOUT_S = 30.0
#: How long UNAVAILABLE is tried again within a call's deadline, unless ``connect`` says otherwise.
PATIENCE_S = 10.0
#: Delays between tries of one call, and between reconnections of a stream.
RETRY_BASE_S = 0.05
RETRY_CAP_S = 2.0
#: Objects asked for at once by calls that page.
PAGE_SIZE = 500
#: Pages read of one list before it is given up as endless.
MAX_PAGES = 10_000
#: How long ``wait`` waits unless told otherwise.
WAIT_TIMEOUT_S = 600.0
#: How long replicas may be without a node before ``wait`` says that they cannot be placed.
PLACEMENT_PATIENCE_S = 3.0
#: How long a replica may be unable to start (registry away, no such command) before ``wait`` gives up.
#: The tries come 1, 2 and 4 s apart, so that the third one that failed ends the wait.
START_PATIENCE_S = 3.0
#: A new replica that ended this often counts as failed.
CRASH_RESTARTS = 2
#: One that ended once counts as failed when its restart is further away than this.
CRASH_PATIENCE_S = 1.0
#: How long the CLI looks whether what became available stays so, when no probe vouches for it.
SETTLE_S = 1.0
#: Log lines shown of a replica that failed.
LOG_TAIL_LINES = 20
#: Times that a read-change-write is tried again when somebody else was faster.
CONFLICT_TRIES = 5
#: Piece size of an image archive on the wire, in bytes.
IMPORT_PIECE_BYTES = 256 * 1024
