"""How long to wait before the next try: exponential, capped, with optional jitter.

The random source is an argument, so that a seeded test sees the same delays.
"""

from __future__ import annotations

import random


class Backoff:
    """Delays ``base_s * factor**n`` up to ``cap_s``; ``reset`` after a success.

    >>> backoff = Backoff(base_s=0.1, cap_s=0.5)
    >>> [backoff.next() for _ in range(4)]
    [0.1, 0.2, 0.4, 0.5]
    """

    def __init__(
        self, *, base_s: float, cap_s: float, factor: float = 2.0, jitter: random.Random | None = None
    ) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._factor = factor
        self._jitter = jitter
        self._delay_s = base_s

    def next(self) -> float:
        """Seconds to wait now; the following answer is longer.

        With a jitter source the answer lies between half and the whole of the delay,
        so that many clients do not come back at the same instant.
        """
        delay_s = self._delay_s
        self._delay_s = min(self._delay_s * self._factor, self._cap_s)
        if self._jitter is not None:
            delay_s *= self._jitter.uniform(0.5, 1.0)
        return delay_s

    def reset(self) -> None:
        """Start again from ``base_s``."""
        self._delay_s = self._base_s
