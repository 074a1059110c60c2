"""What a connection writes is what h2 itself would write, byte for byte, in fewer copies."""

from __future__ import annotations

import random

import h2.config
import h2.connection
import pytest

from cloudless.transport.frames import JOINED_BYTES, GuardedH2
from cloudless.transport.limits import PUBLIC

HEADERS = [(":method", "POST"), (":path", "/x"), (":scheme", "http"), (":authority", "a")]


@pytest.mark.parametrize("seed", range(20))
def test_byte_for_byte(seed: int) -> None:
    chance = random.Random(seed)
    config = h2.config.H2Configuration(client_side=True, header_encoding="latin-1")
    ours, theirs = GuardedH2(config, PUBLIC, lambda: 0.0), h2.connection.H2Connection(config)
    theirs.local_settings = ours.local_settings
    written = [b"", b""]
    for connection in (ours, theirs):
        connection.initiate_connection()
    for _ in range(30):
        if chance.random() < 0.3:
            written[0] += b"".join(ours.take_outgoing())
            written[1] += theirs.data_to_send()
        step = chance.randrange(4)
        stream = ours.get_next_available_stream_id()
        data = chance.randbytes(chance.choice((0, 1, 100, 1500)))
        whole, padding = chance.random() < 0.5, chance.choice((None, None, 0, 9))
        for connection in (ours, theirs):
            if step == 0:
                connection.ping(b"12345678")
            elif step == 1:
                connection.increment_flow_control_window(1000)
            else:
                connection.send_headers(stream, HEADERS)
                given = memoryview(data) if step == 3 else data
                connection.send_data(stream, given, end_stream=whole, pad_length=padding)
    written[0] += ours.data_to_send()
    written[1] += theirs.data_to_send()
    assert written[0] == written[1]
    assert len(written[0]) > 1000


def test_much_data_is_not_copied_and_little_is_joined() -> None:
    ours = GuardedH2(h2.config.H2Configuration(client_side=True), PUBLIC, lambda: 0.0)
    ours.initiate_connection()
    ours.send_headers(1, HEADERS)
    ours.send_data(1, b"little")
    assert len(ours.take_outgoing()) == 1
    much = bytes(JOINED_BYTES)
    ours.send_data(1, much)
    header, data = ours.take_outgoing()
    assert (len(header), data is much) == (9, True)
    assert ours.take_outgoing() == []
