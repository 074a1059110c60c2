"""Limits and deadlines of the agent, with their units: the one page to read or to tune."""

from __future__ import annotations

MIB = 1024 * 1024

# Replicas.
#: Starts under way at the same time: more would only make each of them slower.
CONCURRENT_STARTS = 8
#: Pulls under way at the same time: from one registry, so that one that hangs is alone in
#: it, and from all of them.
CONCURRENT_PULLS_OF_REGISTRY = 3
CONCURRENT_PULLS = 12
#: After SIGKILL, how long a container may take to be reported dead before it is deleted anyway.
KILL_WAIT_S = 10.0
#: Grace of a container that nobody knows the specification of.
STRAY_GRACE_S = 10.0
#: Last lines of the log that are kept with an exit, and their bytes.
LOG_TAIL_LINES = 20
LOG_TAIL_BYTES = 4096
#: A replica that runs and is not ready tells its last lines after so long, and again, later each time.
NOT_READY_BASE_S = 10.0
NOT_READY_CAP_S = 300.0
#: Progress of a pull is reported this often.
PROGRESS_INTERVAL_S = 1.0
#: Processes of one container, unless it is privileged.
MAX_PIDS = 4096
#: Size of an empty_dir or tmpfs volume that names none: the container's memory limit still holds.
DEFAULT_TMPFS_BYTES = 64 * MIB
#: What is done until it works (cleaning up) waits this long between tries.
RETRY_BASE_S = 0.1
RETRY_CAP_S = 10.0

# The link.
LINK_RETRY_BASE_S = 0.05
LINK_RETRY_CAP_S = 5.0
#: A link that held this long was a good one: it is dialled again at once when it breaks.
LINK_STEADY_S = 1.0
#: Events that wait to be stored by the coordinator; older ones are dropped when it is away.
MAX_WAITING_EVENTS = 1000
#: Observations and events that one message carries.
MAX_REPORTED = 200

# The node.
#: Disk use of the data directory above which no replica is started, and below which again.
DISK_FULL_PERCENT = 95
DISK_FREE_AGAIN_PERCENT = 90
#: How often the disk is looked at.
DISK_CHECK_S = 10.0
#: How long the runtime may take to answer before the node says that it is not ready.
INFO_TIMEOUT_S = 5.0
#: After a start, how long a request waits until the node knows which containers run.
KNOWN_S = 3.0

# Requests of people.
EXEC_TIMEOUT_S = 60.0
MAX_EXEC_TIMEOUT_S = 3600.0
DEFAULT_EXEC_OUTPUT_BYTES = 256 * 1024
MAX_EXEC_OUTPUT_BYTES = 400 * 1024
MAX_EXEC_STDIN_BYTES = 512 * 1024
#: Input and output of all commands together that are kept in memory while they run.
EXEC_KEPT_BYTES = 64 * MIB
#: Largest piece of an archive, and largest archive.
MAX_IMPORT_PIECE_BYTES = 512 * 1024
MAX_IMPORT_BYTES = 32 * 1024 * MIB

# Housekeeping.
#: How often it is looked whether the loggers of running containers live.
LOGGER_CHECK_S = 2.0
#: How often images, logs of the dead and the daemon's own log are looked at.
HOUSEKEEPING_S = 60.0
#: How often logs are looked after while containers begin: one that crashes at once makes many.
COLLECT_S = 5.0
#: How often commands are looked for that nobody waits for any more.
LEFTOVERS_S = 5.0
