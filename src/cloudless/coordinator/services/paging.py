"""Page tokens: where a list goes on, so that all its pages show one revision.

A token says the revision, the last key, and which request it belongs to; a checksum with
the cluster's own key makes it opaque: what was not given out here is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from cloudless.coordinator.limits import MAX_TOKEN_CHARS
from cloudless.domain.errors import Invalid

_MAC_BYTES = 12


@dataclass(frozen=True, slots=True)
class Position:
    """Go on after ``after`` (the parts of the last key) in the list at ``revision``."""

    revision: int
    after: tuple[str, ...]


class PageTokens:
    """Writes and reads tokens; ``secret`` is the same in all coordinators of a cluster."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"page-token " + secret.encode()).digest()

    def write(self, position: Position, *scope: str) -> str:
        """The token for the next page of the request that ``scope`` describes."""
        body = json.dumps([position.revision, list(position.after), _digest(scope)]).encode()
        return base64.urlsafe_b64encode(self._mac(body) + body).decode().rstrip("=")

    def read(self, token: str, *scope: str) -> Position | None:
        """Where to go on; None for the first page. Raises ``Invalid``."""
        if not token:
            return None
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if len(token) > MAX_TOKEN_CHARS or not hmac.compare_digest(mac, self._mac(body)):
            raise Invalid.field("page_token", "was not given out by this cluster", hint="list from the start")
        revision, after, digest = json.loads(body)
        if digest != _digest(scope):
            raise Invalid.field(
                "page_token",
                "belongs to a list with other filters",
                hint="repeat the request with nothing changed but page_token and page_size",
            )
        return Position(revision, tuple(after))

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_MAC_BYTES]


def _digest(scope: tuple[str, ...]) -> str:
    return hashlib.sha256(json.dumps(scope).encode()).hexdigest()[:16]
