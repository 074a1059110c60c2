"""What comes from a stream, and the pauses in which nothing comes.

For whoever has something to do when a stream is silent for a while, and must not lose
what it was about to give: the wait goes on while the pause is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from enum import Enum
from typing import Final, Literal, TypeVar

T = TypeVar("T")


class _Sign(Enum):
    PAUSE = 0
    END = 1


#: Stands between items for a time in which none came.
PAUSE: Final = _Sign.PAUSE


async def with_pauses(
    items: AsyncIterator[T], patience_s: Callable[[], float | None]
) -> AsyncGenerator[T | Literal[_Sign.PAUSE], None]:
    """The items, and ``PAUSE`` whenever ``patience_s()`` seconds have passed without one.

    It is asked for before each wait, anew after each pause; None waits for as long as it takes.
    Closing this generator ends the wait, and with it ``items``; what ``items`` raises is raised here.
    """
    coming: asyncio.Task[T | Literal[_Sign.END]] | None = None
    try:
        while True:
            limit_s = patience_s()
            if coming is None and limit_s is None:
                item = await anext(items, _Sign.END)
            else:
                coming = coming or asyncio.get_running_loop().create_task(_next(items), name="with_pauses")
                done, _ = await asyncio.wait({coming}, timeout=limit_s)
                if not done:
                    yield PAUSE
                    continue
                ended, coming = coming, None
                item = ended.result()
            if item is _Sign.END:
                return
            yield item
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.wait({coming})
            if not coming.cancelled():
                coming.exception()  # it counts no more, and is marked as seen


async def _next(items: AsyncIterator[T]) -> T | Literal[_Sign.END]:
    return await anext(items, _Sign.END)
