"""Connections that stay: one request after the other on each, until the other side ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"
PAUSE_S = 0.05
LIMIT_S = 30.0

#: Answers any number of requests on each connection; ends at once on SIGTERM, connections or not.
KEEP_ALIVE = r"""
cat >/tmp/answer.sh <<'EOF'
while read -r line; do
  [ "$line" = "$(printf '\r')" ] || continue
  body="$CLOUDLESS_REPLICA_ID $CLOUDLESS_REVISION"
  printf 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' ${#body} "$body"
done
EOF
trap 'exit 0' TERM
nc -ll -p 8080 -e sh /tmp/answer.sh &
wait
"""


@dataclass
class Lasting:
    """One connection; ``ended_s`` is None while it works."""

    replica_id: str = ""
    answers: int = 0
    ended_s: float | None = None

    async def run(self, port: int) -> None:
        """Ask until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                writer.write(REQUEST)
                async with asyncio.timeout(LIMIT_S):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = int(head.rpartition("Content-Length: ")[2])
                    body = (await reader.readexactly(length)).decode()
                self.replica_id = body.split()[0]
                self.answers += 1
                await asyncio.sleep(PAUSE_S)
        except (OSError, asyncio.IncompleteReadError):
            self.ended_s = asyncio.get_running_loop().time()
        finally:
            writer.close()


@asynccontextmanager
async def lasting(port: int, count: int) -> AsyncIterator[list[Lasting]]:
    """So many connections, each of which has had an answer when the block begins."""
    made = [Lasting() for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run(port)) for one in made]
        try:
            async with asyncio.timeout(LIMIT_S):
                while not all(one.answers for one in made):
                    await asyncio.sleep(PAUSE_S)
            yield made
        finally:
            for task in tasks:
                task.cancel()
