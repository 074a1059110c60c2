"""Limits and deadlines of this room: named, with units, in one place.

Deadlines are what a healthy daemon never needs on a busy machine; they turn a daemon
that hangs into an error, they are not targets.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# Deadlines of calls, seconds.
CALL_TIMEOUT_S = 10.0
#: Creating a task starts a shim and an OCI runtime; on a loaded machine that queues.
TASK_CREATE_TIMEOUT_S = 60.0
TASK_DELETE_TIMEOUT_S = 30.0
#: Deleting an image with ``sync`` waits for the garbage collector.
IMAGE_DELETE_TIMEOUT_S = 60.0
#: Unpacking one layer.
APPLY_TIMEOUT_S = 600.0
PULL_TIMEOUT_S = 1800.0
CONNECT_TIMEOUT_S = 5.0

# HTTP/2 windows, bytes: one stream that nobody reads must not block the others.
STREAM_WINDOW_BYTES = 1 * MIB
CONNECTION_WINDOW_BYTES = 64 * MIB

# What is read into memory, bytes.
#: Manifests and image configs; registries refuse more than 4 MiB as well.
MAX_MANIFEST_BYTES = 4 * MIB
#: passwd and group files of an image.
MAX_ACCOUNT_FILE_BYTES = 1 * MIB
MAX_ACCOUNT_LINE_BYTES = 64 * KIB
MAX_SUPPLEMENTAL_GROUPS = 1024
MAX_ID = 2**31 - 2
MAX_SYMLINKS = 40
#: Remembered answers of "which uid has this USER in that image".
MAX_CACHED_USERS = 1024
MAX_CACHED_IMAGES = 1024

# Image archives.
MAX_ARCHIVE_BYTES = 32 * GIB
MAX_ARCHIVE_ENTRIES = 20_000
#: Extended headers of a tar entry (long names, pax records).
MAX_TAR_HEADER_BYTES = 64 * KIB
MAX_IMAGES_IN_ARCHIVE = 64
#: overlayfs refuses a longer list of lower directories.
MAX_LAYERS = 120
MAX_LAYER_ENTRIES = 500_000
MAX_UNPACKED_BYTES = 32 * GIB
#: Unpacked to packed; deflate itself ends at 1032.
MAX_UNPACK_RATIO = 200
#: Layers below this size are not judged by their ratio.
RATIO_FLOOR_BYTES = 64 * MIB
CONTENT_CHUNK_BYTES = 1 * MIB

#: How long a shim may take to remove what its dead container left.
SHIM_CLEANUP_S = 10.0
#: How long one that was killed, and what it had started, may take to be gone.
SHIM_END_S = 5.0

# Executing in containers.
MAX_EXEC_ARGUMENT_BYTES = 1 * MIB
#: What the pipe of an output holds, and one read takes: with the kernel's 64 KiB each hop would
#: be woken four times as often, for two thirds of the bytes a second.
FIFO_BYTES = 256 * KIB
#: How long a process that runs may be without anybody at the other end of its input, and how often that
#: is looked at: there is no event for it.
FIFO_MEET_S = 2.0
FIFO_MEET_POLL_S = 0.005
#: After the process has ended and its output is read, how long children of it may hold it open.
EXEC_DRAIN_S = 0.25
#: The same when no child of it lives: then the shim still has something to pass on, or is about to
#: close, however long it waits for a processor.
EXEC_PASS_ON_S = 10.0
EXEC_DRAIN_POLL_S = 0.02
EXEC_TERM_GRACE_S = 5.0
#: After SIGKILL, how long the kernel may take to end what was executed.
EXEC_KILL_S = 3.0

# Events.
#: How long a new subscription may take to prove that it hears something.
SUBSCRIBE_PROOF_S = 5.0
SUBSCRIBE_PROBE_INTERVAL_S = 0.05
RECONNECT_BASE_S = 0.05
RECONNECT_CAP_S = 2.0

# Progress of pulls.
#: A download of which no byte comes for so long has failed.
PULL_STALL_S = 60.0
#: Before the first byte, and where the layers are here already and only unpacked.
PULL_BEGIN_S = 120.0
PULL_PROGRESS_INTERVAL_S = 0.2

# The private daemon.
DAEMON_START_TIMEOUT_S = 15.0
DAEMON_STOP_TIMEOUT_S = 10.0
DAEMON_POLL_S = 0.02
DAEMON_LOG_BYTES = 10 * MIB
