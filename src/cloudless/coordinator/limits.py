"""Every limit of the coordinator, with its unit, in one visible place."""

from __future__ import annotations

import datetime
from typing import Final

# The API.
#: Objects on one page of a list, when the caller names no size and at most.
DEFAULT_PAGE_SIZE: Final = 500
MAX_PAGE_SIZE: Final = 1000
#: Bytes of one page; the rest goes to the next one.
MAX_PAGE_BYTES: Final = 900 * 1024
#: Longest page token that is looked at, in characters.
MAX_TOKEN_CHARS: Final = 2048
#: Annotations of one workload: how many, and bytes of all keys and values together.
MAX_ANNOTATIONS: Final = 64
MAX_ANNOTATION_BYTES: Final = 64 * 1024
#: Longest message that is kept with a revision, in characters.
MAX_MESSAGE_CHARS: Final = 1024
#: Longest text that says who asked for a revision, in characters.
MAX_AUTHOR_CHARS: Final = 128
#: Paths in one update mask.
MAX_MASK_PATHS: Final = 256
#: How often an update without resource_version is tried again after a conflict.
UPDATE_ATTEMPTS: Final = 5
#: How long a request may wait for the cache to see a write, in seconds.
CACHE_WAIT_S: Final = 5.0
#: Encoded workloads that are kept for the next read, in bytes.
ENCODED_CACHE_BYTES: Final = 16 * 1024 * 1024
#: How long a verb of a rollout waits until what was asked before is taken up, in seconds.
TAKE_UP_S: Final = 2.0
#: Entries of a rollout's journal in one answer (the newest), their bytes, and how many are read at a time.
MAX_JOURNAL_ENTRIES: Final = 1000
MAX_JOURNAL_BYTES: Final = 512 * 1024
JOURNAL_CHUNK: Final = 500

# Idempotency keys.
#: How long the answer to a request_id is kept, how many answers at most, and their bytes.
REQUEST_LIFETIME: Final = datetime.timedelta(hours=24)
MAX_REQUEST_RECORDS: Final = 5000
MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024

# Watches.
#: Changes that a watch can be resumed from; an older version is OUT_OF_RANGE.
HISTORY_CHANGES: Final = 4096
#: An idle watch gets a bookmark this often, in seconds.
BOOKMARK_INTERVAL_S: Final = 30.0
#: Events that may wait for a slow reader of WatchEvents before it is cut off.
MAX_WAITING_EVENTS: Final = 2000
#: Snapshots of the cluster that are kept for further pages of lists.
KEPT_SNAPSHOTS: Final = 8

# The watch cache.
#: Everything is listed and compared this often, in seconds, in case a change was missed.
RESYNC_INTERVAL_S: Final = 240.0
#: First and longest pause before a failed watch is begun again, in seconds.
RELIST_BASE_S: Final = 0.05
RELIST_CAP_S: Final = 5.0
#: Decoded records that are remembered so that one's own writes are not decoded again.
REMEMBERED_RECORDS: Final = 512

# The control loop.
#: Operations, compares and bytes of one transaction; the store allows 128 of each.
MAX_TXN_OPS: Final = 110
MAX_TXN_BYTES: Final = 1_000_000
#: Observations that a transaction with voluntary stops makes sure of.
MAX_TXN_WITNESSES: Final = 50
#: How long a plan that met a conflict waits for the cache to see the other write.
CATCH_UP_S: Final = 1.0
#: First and longest pause before a key whose plan failed is tried again, in seconds.
RETRY_BASE_S: Final = 0.05
RETRY_CAP_S: Final = 30.0
#: Everything is planned again this often, in seconds, whether it changed or not.
REPLAN_INTERVAL_S: Final = 300.0

# Retention.
#: Events that are kept at most, and for how long.
MAX_EVENTS: Final = 5000
EVENT_LIFETIME: Final = datetime.timedelta(days=7)
#: Old records are looked for this often, in seconds.
RETENTION_INTERVAL_S: Final = 600.0
#: And after so many writes: each may have left an answer.
RETENTION_REVISIONS: Final = 2500
#: Revisions of the store that a compaction leaves readable.
KEPT_STORE_REVISIONS: Final = 10_000

# Links to nodes.
#: Bytes of assignments in one message to a node, as estimated from their specifications.
ASSIGNMENTS_BYTES: Final = 512 * 1024
#: Bytes of one workload's shares of new connections in such a message, as estimated.
SPLIT_BYTES: Final = 128
#: Bytes of specifications in the first message to a node, which holds everything; below
#: what a link takes (transport.limits.LINK_AGENT).
MAX_WHOLE_BYTES: Final = 30 * 1024 * 1024
#: Encoded specifications that one link keeps; with more it begins anew.
MAX_KEPT_SPECS: Final = 256
#: A node must send its first report within this time, in seconds.
FIRST_REPORT_S: Final = 10.0
#: First and longest pause before a report that could not be stored is tried again.
REPORT_RETRY_BASE_S: Final = 0.05
REPORT_RETRY_CAP_S: Final = 2.0
#: Records that one transaction of a report writes; each may cost two operations.
MAX_REPORT_WRITES: Final = 50
#: Replicas and events that one report may hold; more is a broken agent.
MAX_REPORT_ITEMS: Final = 20_000
#: Nodes that may be linked at once.
MAX_NODES: Final = 10_000

# Logs and exec.
#: Bytes that may wait for a slow reader, for each node of a log stream, and what all streams
#: share for this. One batch and a narrow window of the link (transport.limits.LINK_COORDINATOR)
#: are each stream's own; what makes the window a wide one is of the shared bytes too.
LOG_BUFFER_BYTES: Final = 256 * 1024
LOG_BUDGET_BYTES: Final = 32 * 1024 * 1024
#: Room that a reader must have for the next batch before it is taken from its node's buffer.
LOG_ROOM_BYTES: Final = 64 * 1024
#: Bytes of one message where the logs of several nodes are merged; it may be twice that.
LOG_WINDOW_BYTES: Final = 128 * 1024
#: Messages of logs that are sent in one turn of the loop: others' calls want turns too.
LOG_MESSAGES_PER_TURN: Final = 16
#: Replicas whose logs one stream reads at a time.
MAX_LOG_SOURCES: Final = 2000
#: Streams of logs at a time: of one caller (a host), and of all together. With programs and
#: forwarded connections each may take a stream of one node's link, which has room for all
#: (transport.limits.LINK_AGENT).
MAX_LOG_STREAMS_OF_CALLER: Final = 1000
MAX_LOG_STREAMS: Final = 1500
#: Streams of logs whose readers may pause for as long as they like; of more, those that
#: take nothing for a while are cut off, and go on by their cursors.
MAX_PATIENT_LOGS: Final = 200
#: Pause before a node that is away is asked for its logs again, in seconds.
LOG_RETRY_S: Final = 0.5
#: Time a command may take when none is given, and at most.
EXEC_TIMEOUT: Final = datetime.timedelta(seconds=60)
MAX_EXEC_TIMEOUT: Final = datetime.timedelta(hours=1)
#: What the agent may need on top of a command's own time, in seconds.
EXEC_MARGIN_S: Final = 15.0
#: Bytes kept of each output stream of a command: by default and at most.
EXEC_OUTPUT_BYTES: Final = 256 * 1024
MAX_EXEC_OUTPUT_BYTES: Final = 400 * 1024

#: Programs that may run at once, buffered or not: for one caller (a host), and for all together.
MAX_EXECS_OF_CALLER: Final = 256
MAX_EXECS: Final = 2000
#: How long a caller may take to say what it wants to run, in seconds.
EXEC_START_S: Final = 10.0
#: How long a node may take to say what runs there by exec, in seconds, and how many are asked at once.
EXECS_ASKED_S: Final = 5.0
EXECS_ASKED_AT_ONCE: Final = 32
#: Time between SIGTERM and SIGKILL for a program that is ended when none is given, and at most, in seconds.
KILL_GRACE_S: Final = 5.0
MAX_KILL_GRACE_S: Final = 600.0
#: How long a call waits for the second connection of a node whose first one stands, in seconds:
#: both are dialled at the same time.
BULK_WAIT_S: Final = 2.0

# Forwarded connections.
#: How many may be open at once: of one caller (a host), and of all together.
MAX_FORWARDS_OF_CALLER: Final = 500
MAX_FORWARDS: Final = 2000
#: How long a caller may take to name its target, in seconds.
FORWARD_TARGET_S: Final = 10.0
#: Replicas that are tried for one connection until one accepts it.
MAX_FORWARD_TRIES: Final = 3

# Health.
#: The loop's lag is measured this often, in seconds.
LAG_INTERVAL_S: Final = 0.5
#: A control loop that handles one key for longer than this, in seconds, is not alive.
STUCK_LOOP_S: Final = 30.0
#: How long calls may go on when the coordinator stops, in seconds.
DRAIN_S: Final = 5.0
