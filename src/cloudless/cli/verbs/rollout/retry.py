"""Try a failed, rolled back or aborted rollout again, and wait until it ends."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser)


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    return await steer(context, "retry")
