"""``host:port`` as operators write it; the type of every address in a configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

#: Longest host name that DNS allows.
MAX_HOST_LENGTH = 253


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``; port 0 lets the kernel choose.

    Raises ``ValueError`` on anything else.

    >>> split_address("127.0.0.1:8080"), split_address("[::1]:0")
    (('127.0.0.1', 8080), ('::1', 0))
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    whole = colon and host and port.isascii() and port.isdigit()
    if not whole or len(host) > MAX_HOST_LENGTH or int(port) > 65535:
        raise ValueError(f"{text[:80]!r} is not an address; write for example 127.0.0.1:8080")
    return host, int(port)


def _check(text: str) -> str:
    split_address(text)
    return text


Address = Annotated[str, AfterValidator(_check)]
