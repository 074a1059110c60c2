"""How bytes travel and who may speak: codec, guarded HTTP/2, channels, links, errors.

``server`` (GuardedServer) and ``channel`` (connect) are the two ends of an ordinary
connection; ``link`` turns them round, so that a node that dialled out serves on its own
connection. ``codec`` turns messages into bytes, ``errors`` turns domain errors into gRPC
statuses and back. Services, roles and the SDK build on these; nothing here decides
anything about workloads, and no other room speaks HTTP/2. Every limit is in ``limits``.
"""
