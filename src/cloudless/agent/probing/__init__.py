"""Carries out one probe attempt against a replica: HTTP, TCP, gRPC health, exec.

When to probe and what the answers mean is decided by ``planning.probes``. A probe goes
to the replica's own address inside its network namespace, and nowhere else.
"""
