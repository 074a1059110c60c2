"""Take no further step until resumed; what was begun is finished.

Waits until no step is taken any more."""

from __future__ import annotations

import argparse

from cloudless.cli.context import Context
from cloudless.cli.steering import add_steering_options, steer


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    add_steering_options(parser)


async def run(context: Context) -> int:
    """Steer, and wait for the effect."""
    return await steer(context, "pause", goal="paused")
