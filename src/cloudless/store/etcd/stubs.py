"""etcd's messages and stubs as aetcd generates them, with gRPC: untyped, so kept in one place.

Everything else in this room takes them from here. aetcd's own client class is not used.
"""

from __future__ import annotations

from typing import Any

import grpc.aio  # type: ignore[import-untyped]
from aetcd import rpc as _rpc  # type: ignore[import-untyped]

rpc: Any = _rpc
Channel: Any = grpc.aio.Channel
RpcError: type[Exception] = grpc.aio.AioRpcError
UsageError: type[Exception] = grpc.aio.UsageError
StatusCode: Any = grpc.StatusCode
Connectivity: Any = grpc.ChannelConnectivity
insecure_channel: Any = grpc.aio.insecure_channel
secure_channel: Any = grpc.aio.secure_channel
ssl_channel_credentials: Any = grpc.ssl_channel_credentials
EOF: Any = grpc.aio.EOF
