"""Cloudless: a container orchestrator as one asyncio program."""
