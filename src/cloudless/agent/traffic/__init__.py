"""Published ports of one node: stable, balanced over its ready replicas.

``switchboard`` knows which replica takes part, ``port`` is what carries it out: ``kernel``
with rules in nftables, ``memory`` for tests; one contract suite tests both. Established
connections are never touched here, only where new ones go.
"""
