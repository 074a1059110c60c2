"""asyncio without the domain: supervised tasks, clocks, queues, back-off, latest-wins slots.

Every room that waits or runs something in the background comes here; nothing here
knows what a workload is. This is the only room that creates asyncio tasks, apart
from the one ``TaskGroup`` of each role's ``main``.
"""
