"""Print the version of this program and of the coordinator."""

from __future__ import annotations

import argparse
import json

from cloudless import __version__
from cloudless.cli import exits
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import neutral


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("--client", action="store_true", help="ask no coordinator")
    parser.add_argument("-o", "--output", metavar="FORMAT", default="table", help="table or json")


async def run(context: Context) -> int:
    """Both versions; a coordinator that cannot be reached is an error, said after our own."""
    if context.arguments.output not in ("table", "json"):
        raise UsageError("-o must be table or json here")
    as_json = context.arguments.output == "json"
    if not as_json:
        context.out.line(f"client       {__version__}")
    if context.arguments.client:
        if as_json:
            context.out.line(json.dumps({"client": __version__}))
        return exits.OK
    async with context.client() as client:
        info = (await client.info()).message
    if as_json:
        server = {"version": info.version, "store": info.store, "leader": info.leader}
        nodes = {"nodes": info.nodes, "nodes_ready": info.nodes_ready, "cluster_id": info.cluster_id}
        context.out.line(json.dumps({"client": __version__, "coordinator": server | nodes}))
        return exits.OK
    role = "leader" if info.leader else "not leader"
    context.out.line(f"coordinator  {neutral(info.version)} at {context.target.address}, {role}")
    context.out.line(f"store        {neutral(info.store)}")
    context.out.line(f"nodes        {info.nodes_ready} ready of {info.nodes}")
    return exits.OK
