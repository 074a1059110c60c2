"""Every limit of this room in one place, with its unit."""

from __future__ import annotations

#: Longest line of an HTTP answer.
LINE_BYTES = 8 * 1024
#: What is read of an HTTP answer until its final status has to be there.
ANSWER_BYTES = 64 * 1024
#: Longest answer of a gRPC health check.
GRPC_ANSWER_BYTES = 4 * 1024
