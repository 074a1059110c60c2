"""The private names of grpclib 0.4.9 and h2 that this room stands on, in one place.

grpclib is pinned exactly; whoever raises the pin reads this page and runs the tests of
this room. No other module of the project imports these names.

- ``grpclib.protocol``: ``H2Protocol`` (asyncio protocol), ``Connection`` (h2 and its
  transport), ``EventsProcessor`` (h2 events to streams), ``Stream`` (one HTTP/2 stream),
  ``AbstractHandler`` (who gets new streams). All five are subclassed or implemented.
- ``grpclib.client``: ``Channel._create_connection``, ``Channel._protocol``,
  ``Channel._connected`` and ``Stream._wrapper``, ``_deadline``, ``_stream``, ``_end_done``.
- ``grpclib.utils.Wrapper``: what wakes a call up when its stream ends early.
- ``h2.connection.H2Connection``: ``_receive_frame``, ``_receive_goaway_frame``,
  ``_prepare_for_sending``, ``_inbound_flow_control_window_manager`` and the order of
  ``initiate_connection``.
- ``hyperframe.frame.DataFrame._body_repr``: what a frame looks like in a log.
"""

from __future__ import annotations

from grpclib.client import Channel, Handler
from grpclib.client import Stream as ClientStream
from grpclib.metadata import Deadline, decode_grpc_message, encode_grpc_message
from grpclib.protocol import AbstractHandler, Connection, EventsProcessor, H2Protocol, Stream
from grpclib.utils import Wrapper

__all__ = [
    "AbstractHandler",
    "Channel",
    "ClientStream",
    "Connection",
    "Deadline",
    "EventsProcessor",
    "H2Protocol",
    "Handler",
    "Stream",
    "Wrapper",
    "decode_grpc_message",
    "encode_grpc_message",
]
