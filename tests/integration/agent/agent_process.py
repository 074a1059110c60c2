"""One agent as a process of its own, to be killed: ``python -m ... <config as JSON>``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from cloudless.agent.config import AgentConfig
from cloudless.agent.main import agent
from cloudless.aio.clock import SystemClock
from cloudless.aio.ids import random_id


async def main() -> None:
    config = AgentConfig.model_validate_json(sys.argv[1])
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with agent(config, SystemClock(), new_id=random_id) as running:
        print(running.port, flush=True)
        await running.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
