"""Bounds of what one decision may do or say, and the graces that it grants."""

from __future__ import annotations

#: Replica records one plan may change; the rest follows at once in further plans. With an
#: event each, and the few other writes of a plan, this stays below 128 operations, which
#: is what an etcd transaction takes.
MAX_REPLICA_CHANGES = 50
#: Entries in the journal of one revision's rollout.
MAX_JOURNAL_ENTRIES = 1_000
#: Replicas that a tree of reasons speaks of one by one.
MAX_EXPLAINED = 8
#: Log lines and bytes of them that are kept with a failure.
MAX_LOG_LINES = 20
MAX_LOG_CHARACTERS = 4_096
#: Nodes whose refusal is spelled out; the others are counted.
MAX_REFUSALS = 20
#: Replicas without a node whose refusals are stored; the others of a revision share them.
MAX_EXPLAINED_REPLICAS = 10
#: Longest message taken over from a node into a sentence of ours, in characters.
MAX_QUOTED = 300

#: Seconds from a broken connection to a lost node, in a cluster of up to 300 nodes.
LOST_GRACE_S = 3.0
#: The grace grows by this with each node, up to the cap: in a large cluster more of them
#: reconnect at once after a coordinator's death, and one node's loss matters less.
LOST_GRACE_PER_NODE_S = 0.01
LOST_GRACE_CAP_S = 30.0
#: Seconds after the coordinator's start in which a node that has not yet dialled in is
#: still believed to be as it was stored.
RECONNECT_GRACE_S = 2.0
