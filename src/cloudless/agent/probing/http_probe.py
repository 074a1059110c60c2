"""One HTTP request to a replica: only the status counts, nothing after it is read.

A redirect is an answer like any other and is not followed; there is no proxy, no cookie, no
name to look up and no second try. A client library would bring those, 10 MiB and 0.1 s.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl

from cloudless.agent.probing.limits import ANSWER_BYTES, LINE_BYTES
from cloudless.agent.probing.outcome import ProbeOutcome
from cloudless.domain.probes import HttpProbe

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_NO_HTTP = ProbeOutcome(False, "no HTTP answer")


async def probe_http(probe: HttpProbe, address: str, connected: socket.socket) -> ProbeOutcome:
    """Ask over ``connected``, which the call takes over; raises ``OSError`` when the peer breaks off."""
    reader, writer = await asyncio.open_connection(
        sock=connected,
        ssl=_any_certificate() if probe.scheme == "https" else None,
        server_hostname="" if probe.scheme == "https" else None,
        limit=LINE_BYTES,
    )
    try:
        writer.write(request_text(probe, address))
        status = await _final_status(reader)
    except (asyncio.LimitOverrunError, ValueError):
        return _NO_HTTP
    except asyncio.IncompleteReadError as error:
        return _NO_HTTP if error.partial else ProbeOutcome(False, "closed without an answer")
    finally:
        writer.transport.abort()
    return ProbeOutcome(200 <= status < 400, f"HTTP {status}")


def request_text(probe: HttpProbe, address: str) -> bytes:
    """The request's head; path and headers were checked by the spec.

    >>> request_text(HttpProbe(port=80, headers={"Accept": "text/html"}), "10.0.0.2").splitlines()[:2]
    [b'GET / HTTP/1.1', b'Host: 10.0.0.2:80']
    """
    given = {name.lower() for name in probe.headers}
    ours = {"Host": f"{address}:{probe.port}", "User-Agent": "cloudless-probe", "Accept": "*/*"}
    headers = {**{name: text for name, text in ours.items() if name.lower() not in given}, **probe.headers}
    headers = {name: text for name, text in headers.items() if name.lower() != "connection"}
    lines = [f"GET {probe.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


async def _final_status(reader: asyncio.StreamReader) -> int:
    """The status, past any "100 Continue"; raises ``ValueError`` when it is no HTTP, or too long."""
    left = ANSWER_BYTES
    while True:
        line = await reader.readuntil(b"\n")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise ValueError("not a status line")
        status = int(match[1])
        if status >= 200:
            return status
        while line not in (b"\r\n", b"\n"):
            left -= len(line)
            if left < 0:
                raise ValueError("too long")
            line = await reader.readuntil(b"\n")


@functools.cache
def _any_certificate() -> ssl.SSLContext:
    """A replica's certificate names its service, not its address, and is often its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
