"""Every limit of the transport, with its unit: the one page to read or to tune.

A ``Limits`` goes into each server, channel and link. The presets say for whom they are:
``PUBLIC`` for a port that anybody may reach, ``CLIENT`` for the dialling side of such a
port, ``LINK_AGENT`` and ``LINK_COORDINATOR`` for the two ends of a node's link.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KIB = 1024
MIB = 1024 * KIB

#: Largest message that is sent or received, in bytes, unless a server says otherwise.
MAX_MESSAGE_BYTES = 1 * MIB
#: Largest HTTP/2 frame payload we accept; larger frames make bulk streams cheaper.
MAX_FRAME_BYTES = 64 * KIB
#: Data that may wait in the socket's write buffer before senders pause.
WRITE_BUFFER_BYTES = 256 * KIB
#: What may wait there before reading pauses too: far more than data alone can be, so that two
#: ends that are both full of data still read, and only answers to control frames come so far.
READ_PAUSE_BYTES = 512 * KIB
#: Slowest pace at which a peer may take a message that is sent to it: together with
#: ``send_stall_s`` this bounds how long one message may take.
SLOWEST_PEER_BYTES_PER_S = 16 * KIB
#: How long a closing connection may flush what it still has to say.
CLOSE_FLUSH_S = 5.0
#: A watched peer whose kernel says nothing is asked after so long, so often, so many times:
#: its machine is known to be gone after 4 s, whether anything was on its way to it or not.
PEER_IDLE_S = 2
PEER_INTERVAL_S = 1
PEER_TRIES = 2
PEER_GONE_MS = 4000
#: Connections that the kernel keeps waiting for us to accept.
LISTEN_BACKLOG = 4096
#: Longest first line of a link, either way, in bytes.
LINK_LINE_BYTES = 4 * KIB
#: How long the two first lines of a link may take together.
LINK_HANDSHAKE_S = 5.0
#: Longest message and hint of an error that are sent, in bytes; the rest is cut off. With
#: ``STATUS_DETAIL_BYTES`` of field violations they fit into the 8 KiB that common clients
#: take as headers.
STATUS_MESSAGE_BYTES = 1024
STATUS_HINT_BYTES = 512
STATUS_DETAIL_BYTES = 3072
#: Most field violations that one error carries.
STATUS_VIOLATIONS = 32


@dataclass(frozen=True)
class Limits:
    """Limits of one connection (and, for the last group, of one server).

    Sizes are in bytes, times in seconds, and counts are counts.
    """

    # What may be in flight.
    message_bytes: int = MAX_MESSAGE_BYTES
    stream_window_bytes: int = 256 * KIB
    #: What a stream of our own gets when it is opened, unless it asked for less; None for no more.
    wide_window_bytes: int | None = None
    #: How much of a window a peer gives back for sure when all was read: some wait until half
    #: of it was, and who waits for more room than that waits for ever.
    returned_share: float = 0.25
    connection_window_bytes: int = 64 * MIB
    frame_bytes: int = MAX_FRAME_BYTES
    concurrent_streams: int = 200
    header_list_bytes: int = 16 * KIB

    # How long things may take.
    handshake_s: float = 5.0
    request_body_s: float = 10.0
    send_stall_s: float = 30.0
    stream_wait_s: float = 5.0
    call_s: float = 3600.0
    idle_s: float | None = 900.0
    keepalive_interval_s: float = 20.0
    keepalive_timeout_s: float = 20.0

    # What a peer may make us do in vain.
    budget_window_s: float = 10.0
    resets: int = 200
    control_frames: int = 1000

    # Of one server: its connections, those of one peer, and the calls of all together.
    connections: int = 10_000
    connections_per_peer: int = 100
    calls: int = 10_000

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other (``ValueError``)."""
        if max(self.stream_window_bytes, self.wide_window_bytes or 0) > self.connection_window_bytes:
            raise ValueError("one unread stream would fill the window of its whole connection")
        if not 16 * KIB <= self.frame_bytes < 16 * MIB:
            raise ValueError("frame_bytes must be between 16 KiB and 16 MiB")


#: The coordinator's public port and the agent's local port. 200 streams times 256 KiB
#: fit into the connection's 64 MiB, so unread streams never block another one.
PUBLIC = Limits()

#: The dialling side of a public port: SDK and CLI. A client has no idle limit of its own.
CLIENT = replace(PUBLIC, idle_s=None, keepalive_interval_s=10.0, keepalive_timeout_s=10.0)

#: The serving end of a link: the node that dialled. Fast detection, and room for as many calls
#: at once as the coordinator's own limits let in (a test adds them up): whoever is within
#: those never waits for a stream. What is not read is bounded by those limits too.
LINK_AGENT = replace(
    PUBLIC,
    # All that a node is to run comes in one message, specifications included.
    message_bytes=32 * MIB,
    concurrent_streams=6000,
    connection_window_bytes=1536 * MIB,
    # The other end gives it back as soon as it waits for more, or has a window of 256 KiB.
    returned_share=1.0,
    idle_s=None,
    # All calls may end at once, when their caller goes away.
    resets=12_000,
    control_frames=60_000,
    keepalive_interval_s=2.0,
    keepalive_timeout_s=2.0,
)

#: The calling end of a link: the coordinator, over the socket it accepted. A narrow call has room
#: for one message of logs, so that what nobody reads costs no more; all others have the usual.
LINK_COORDINATOR = replace(
    LINK_AGENT,
    message_bytes=4 * MIB,
    stream_window_bytes=72 * KIB,
    wide_window_bytes=256 * KIB,
)
