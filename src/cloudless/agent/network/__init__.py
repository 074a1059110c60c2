"""Network of the replicas of one node: namespaces, addresses, host ports.

``port`` is what the rest of the agent sees; ``kernel`` does it, ``memory`` pretends
to, and one contract suite tests both. Nothing here knows workloads or the store, and
nothing that is not marked as this node's own is ever changed or removed.
"""
