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
#: Paths in one update mask.
MAX_MASK_PATHS: Final = 256
#: How often an update without resource_version is tried again after a conflict.
UPDATE_ATTEMPTS: Final = 5
#: How long a request may wait for the cache to see a write, in seconds.
CACHE_WAIT_S: Final = 5.0
#: Encoded workloads that are kept for the next read, in bytes.
ENCODED_CACHE_BYTES: Final = 16 * 1024 * 1024

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
#: Entries and bytes that wait for a slow reader, for each replica of a log stream.
LOG_BUFFER_ENTRIES: Final = 256
LOG_BUFFER_BYTES: Final = 256 * 1024
#: Replicas whose logs one stream reads at a time.
MAX_LOG_SOURCES: Final = 500
#: Pause before a broken log source is read again, in seconds.
LOG_RETRY_S: Final = 0.5
#: Time a command may take when none is given, and at most.
EXEC_TIMEOUT: Final = datetime.timedelta(seconds=60)
MAX_EXEC_TIMEOUT: Final = datetime.timedelta(hours=1)
#: What the agent may need on top of a command's own time, in seconds.
EXEC_MARGIN_S: Final = 15.0
#: Bytes kept of each output stream of a command: by default and at most.
EXEC_OUTPUT_BYTES: Final = 256 * 1024
MAX_EXEC_OUTPUT_BYTES: Final = 400 * 1024

# Health.
#: The loop's lag is measured this often, in seconds.
LAG_INTERVAL_S: Final = 0.5
#: A control loop that handles one key for longer than this, in seconds, is not alive.
STUCK_LOOP_S: Final = 30.0
#: How long calls may go on when the coordinator stops, in seconds.
DRAIN_S: Final = 5.0
