"""New ids: random, sortable as nothing, safe in paths, host names and store keys.

Roles pass ``random_id`` (or a seeded ``IdSource`` in tests) to whoever makes objects.
"""

from __future__ import annotations

import random
import secrets

_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
#: 16 characters of 32 letters are 80 random bits: no collision in the life of a cluster.
ID_LENGTH = 16


def random_id() -> str:
    """A fresh id from the system's secure random source."""
    return "".join(_ALPHABET[byte & 31] for byte in secrets.token_bytes(ID_LENGTH))


class IdSource:
    """The same ids for the same seed: for tests and simulations.

    >>> IdSource(random.Random(1))() == IdSource(random.Random(1))()
    True
    """

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def __call__(self) -> str:
        return "".join(self._source.choice(_ALPHABET) for _ in range(ID_LENGTH))
