"""Make an older revision the newest, and wait until it is rolled out.

Without --to-revision the newest earlier one that was proved healthy, or else the one before;
after a rollback the one that was gone back to."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser, message=True)
    parser.add_argument("--to-revision", metavar="N", type=int, default=0, help="see rollout history")


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    arguments = context.arguments
    return await steer(context, "undo", to_revision=arguments.to_revision, message=arguments.message)
