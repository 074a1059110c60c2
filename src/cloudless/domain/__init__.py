"""What things are: workloads, revisions, replicas, nodes, events, plans.

Frozen pydantic models and plain data. This is the one place of defaults, constraints
and their documentation; the JSON Schema of manifests comes from here. Nothing here
waits, reads a clock, logs, or knows how anything is sent or stored.
"""
