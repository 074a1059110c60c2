"""The async client: what ``import cloudless`` gives to a program.

``client`` is the front door; ``workload`` and ``objects`` are what it takes and returns;
``calling`` owns the connection, deadlines and retries; ``watch``, ``events`` and ``logs``
are streams that resume by themselves; ``waiting`` asks ``verdict`` whether a workload is
where it should be; ``manifest`` reads and writes files. The CLI is one of its users.
"""
