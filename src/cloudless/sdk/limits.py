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
#: How long ``wait`` waits, unless told otherwise, where no rollout is on that ends by a deadline of its own.
WAIT_TIMEOUT_S = 600.0
#: Silence beyond a rollout's own deadlines after which a wait without a limit ends.
SILENCE_MARGIN_S = 60.0
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
#: Largest number of lines or bytes that a request for logs can carry.
MAX_LOG_COUNT = 2**63 - 1
#: How long a followed log waits for a coordinator that was there and is away.
LOG_OUTAGE_S = 900.0
#: How long logs that are not followed wait for a node that is away: an agent that restarts is back by then.
LOG_NODE_PATIENCE_S = 10.0
#: How long leaving a block of logs waits for another task that reads them to let go.
LOG_LEAVE_S = 10.0
#: Times that a read-change-write is tried again when somebody else was faster.
CONFLICT_TRIES = 5
#: Piece size of an image archive on the wire, in bytes.
IMPORT_PIECE_BYTES = 256 * 1024

# Connections.
#: Calls that last on one connection to the coordinator: half of what it allows, so that quick
#: ones always find room, too.
STREAMS_PER_CHANNEL = 100
#: Connections of one client, and of one forwarded port, at most; a host may have 100.
MAX_STREAM_CHANNELS = 16

# Forwarded ports.
#: Connections of one local port at the same time; more of them wait to be accepted.
MAX_FORWARDS = 1000
#: Connections that the kernel keeps waiting for us to accept.
FORWARD_BACKLOG = 1024
#: Most bytes of one message: with its framing it fits into one HTTP/2 frame of 64 KiB, and
#: it takes in whole what the loopback interface carries at once (65483 bytes).
FORWARD_PIECE_BYTES = 64 * 1024 - 32
#: What the kernel keeps of a connection that is not read: enough for whole pieces, and no more.
FORWARD_RECEIVE_BUFFER_BYTES = 256 * 1024
#: Pause before a port accepts again when no file descriptor was left.
ACCEPT_PAUSE_S = 0.1
#: How long leaving a rollout by an exception may take to abort it.
ABORT_TIMEOUT_S = 10.0

# Programs in replicas.
#: Output of one program that waits to be read; with more the program waits.
EXEC_BUFFER_BYTES = 256 * 1024
#: Bytes of input in one message; with its framing it fits into one HTTP/2 frame of 64 KiB.
EXEC_PIECE_BYTES = 64 * 1024 - 64
