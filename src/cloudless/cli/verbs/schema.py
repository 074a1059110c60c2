"""Print the JSON Schema (draft-07) of manifests.

For editors: cloudless schema > cloudless.schema.json, and on top of a manifest
# yaml-language-server: $schema=cloudless.schema.json"""

from __future__ import annotations

import argparse
import json

from cloudless.cli import exits
from cloudless.cli.context import Context


def arguments(parser: argparse.ArgumentParser) -> None:
    """This verb has no options of its own."""
    del parser


async def run(context: Context) -> int:
    """Print it."""
    from cloudless.sdk.manifest.schema import manifest_schema

    context.out.write(json.dumps(manifest_schema(), indent=2) + "\n")
    return exits.OK
