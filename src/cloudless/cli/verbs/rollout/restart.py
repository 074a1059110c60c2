"""Make new replicas of the same specification, by its strategy, and wait until they are there."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser, message=True)
    parser.add_argument("--pull", action="store_true", help="ask the registry what the image's tag means now")


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    arguments = context.arguments
    return await steer(context, "restart", pull=arguments.pull, message=arguments.message)
