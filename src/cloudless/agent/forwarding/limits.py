"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

#: Connections that are carried at the same time on one node.
CONCURRENT_FORWARDS = 500
#: How long the caller may take to say where it wants to go.
TARGET_TIMEOUT_S = 10.0
#: How long a replica may take to accept a connection.
CONNECT_TIMEOUT_S = 5.0
#: Most bytes of one message: with its framing it fits into one HTTP/2 frame of 64 KiB, and
#: it takes in whole what the loopback interface carries at once (65483 bytes).
PIECE_BYTES = 64 * 1024 - 32
#: What the kernel keeps of a connection that is not read: enough for whole pieces, and no more.
RECEIVE_BUFFER_BYTES = 256 * 1024
#: Largest piece that a caller may send.
MAX_PIECE_BYTES = 512 * 1024
