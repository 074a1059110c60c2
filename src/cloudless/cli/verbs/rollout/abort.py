"""Go back to the last revision that was proved healthy, and wait until it is there."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser)


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    return await steer(context, "abort", goal="rolled_back")
