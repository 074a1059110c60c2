"""Go on from a wait for promotion.

Waits until the rollout ends, or until it waits to be promoted once more. --full leaves out
all further canary steps."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser)
    parser.add_argument("--full", action="store_true", help="leave out all further canary steps")


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    return await steer(context, "promote", goal="promoted", full=context.arguments.full)
