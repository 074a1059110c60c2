"""A process that writes to an embedded store and says what was answered; it is killed.

Run as ``python writer.py DIRECTORY FIRST``. Each line on stdout is one acknowledged write:
``writer number revision``.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cloudless.aio.clock import SystemClock
from cloudless.store.embedded import open_embedded
from cloudless.store.port import Delete, Put

WRITERS = 8


async def main(path: Path, first: int) -> None:
    async with open_embedded(path, SystemClock(), new_id=lambda: "ledger") as store:
        print("open", flush=True)

        async def write(writer: int) -> None:
            number = first
            while True:
                key, value = f"ledger/{writer}", b"%d" % number
                pair = [Put(key, value), Put(f"pair/{writer}", value), Delete(f"junk/{writer}/{number - 1}")]
                result = await store.txn((), [*pair, Put(f"junk/{writer}/{number}", bytes(500))])
                print(writer, number, result.revision, flush=True)
                number += 1

        await asyncio.gather(*(write(writer) for writer in range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
