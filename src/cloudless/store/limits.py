"""Every limit of the store room, in one visible place; units are in the names.

The first group is the contract: each implementation accepts what lies within it and
answers ``TooLarge`` beyond it, whatever its own machinery could carry. The second
group bounds what the implementations hold in memory or wait for.
"""

from __future__ import annotations

from typing import Final

# The contract.
MAX_KEY_BYTES: Final = 4 * 1024
MAX_VALUE_BYTES: Final = 1024 * 1024
#: Operations in one branch of a transaction, and compares in one transaction.
MAX_TXN_OPS: Final = 128
#: Keys and values of both branches and all compares of one transaction together.
MAX_TXN_BYTES: Final = 1_310_720
#: A lease lives a whole number of seconds; the store may grant more than was asked.
MIN_LEASE_TTL_S: Final = 1
MAX_LEASE_TTL_S: Final = 24 * 3600

# The local stores (memory, embedded).
#: Revisions kept for watches and pinned reads before automatic compaction.
HISTORY_REVISIONS: Final = 5_000
#: Bytes of superseded values kept for the same purpose.
HISTORY_BYTES: Final = 8 * 1024 * 1024
#: Automatic compaction drops this many revisions at a time, so that no step is long.
COMPACTION_STEP_REVISIONS: Final = 200
#: Live keys and values; beyond it only deletes are accepted (``NoSpace``).
MAX_STORE_BYTES: Final = 512 * 1024 * 1024
#: A watcher that is behind looks at this many revisions at a time.
REPLAY_REVISIONS: Final = 256
#: How long an expired lease waits when its keys could not be deleted (disk full).
EXPIRY_RETRY_S: Final = 1.0
#: Each lease costs one waiting task.
MAX_LEASES: Final = 10_000
#: A watcher that skipped so many revisions of other prefixes gets a bookmark.
BOOKMARK_REVISIONS: Final = 100
#: Writers that may wait for the disk at once; one more is told ``Unavailable``.
MAX_WAITING_WRITES: Final = 20_000
#: The embedded store's log is copied into its table after so many pages.
CHECKPOINT_PAGES: Final = 2_000
#: Writes that share one fsync, and the bytes they may hold together.
GROUP_COMMIT_WRITES: Final = 512
GROUP_COMMIT_BYTES: Final = 8 * 1024 * 1024

# The etcd client.
#: One try at one endpoint, and all tries of one call together.
ATTEMPT_TIMEOUT_S: Final = 1.5
CALL_TIMEOUT_S: Final = 6.0
#: Keys fetched by one range request when the caller asked for all.
PAGE_KEYS: Final = 1_000
MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
#: An idle watch asks for a sign of life so often, and waits so long for it.
WATCH_PROBE_S: Final = 5.0
WATCH_PROBE_TIMEOUT_S: Final = 3.0
#: Batches read ahead of a slow consumer; the rest waits at the server.
WATCH_BUFFER_BATCHES: Final = 256
RECONNECT_BASE_S: Final = 0.02
RECONNECT_CAP_S: Final = 1.0

#: Shorter sleeps are not asked for: a clock with a coarse resolution would not move.
SHORTEST_SLEEP_S: Final = 0.001

# Election.
ELECTION_TTL_S: Final = 15
#: Part of the lease that a leader does not use, against clocks of different speed.
ELECTION_MARGIN: Final = 0.15
#: Part of the lease after which the leader renews it.
ELECTION_RENEW: Final = 0.25
#: How soon a failed renewal is tried again.
ELECTION_RETRY_S: Final = 0.5
#: A candidate looks at the key this often even if its watch is silent.
ELECTION_RECHECK_S: Final = 5.0
#: How long a graceful stop may spend on giving the lease back.
RESIGN_TIMEOUT_S: Final = 2.0
