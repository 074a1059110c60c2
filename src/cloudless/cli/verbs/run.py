"""Run an image as a workload, and wait until it is available.

Everything after -- replaces the arguments of the image. For more than these options
write a manifest: cloudless run ... --dry-run -o yaml prints one to begin with."""

from __future__ import annotations

import argparse
from typing import Any

from cloudless.cli import exits
from cloudless.cli.changing import add_change_options, finish, show_results
from cloudless.cli.context import Context
from cloudless.cli.parsing import UsageError


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("name", metavar="NAME", help="name of the workload")
    parser.add_argument("image", metavar="IMAGE", help="for example nginx:alpine")
    parser.add_argument("rest", metavar="-- ARG ...", nargs="*", default=[], help="arguments of the program")
    parser.add_argument(
        "--replicas", metavar="N", type=int, default=1, help="number of replicas, 1 by default"
    )
    parser.add_argument(
        "-p",
        "--publish",
        action="append",
        default=[],
        metavar="[[ADDRESS:]PORT:]CONTAINER[/udp]",
        help="a port of the node, balanced over the ready replicas",
    )
    parser.add_argument(
        "-e", "--env", action="append", default=[], metavar="K=V", help="environment variable"
    )
    parser.add_argument(
        "-l", "--label", action="append", default=[], metavar="K=V", help="label of the workload"
    )
    parser.add_argument("--cpu", metavar="CORES", help="limit, for example 500m or 2")
    parser.add_argument("--memory", metavar="SIZE", help="limit, for example 128Mi")
    parser.add_argument("--command", metavar="PROGRAM", help="replaces the entrypoint of the image")
    parser.add_argument("--restart", metavar="POLICY", help="always, on-failure or never")
    add_change_options(parser)


async def run(context: Context) -> int:
    """Create the workload and wait."""
    arguments = context.arguments
    async with context.client() as client:
        from cloudless.sdk.workload import Workload

        # Given are only the fields that options name, so that defaults stay the server's.
        workload = Workload(
            arguments.name,
            namespace=context.namespace,
            labels=pairs("--label", arguments.label),
            **fields_of(arguments),
        )
        if arguments.dry_run and arguments.output is not None:
            context.arguments.dry_run = False
            show_results(context, [workload], single=True)
            return exits.OK
        created = await client.create(workload, dry_run=arguments.dry_run)
        never = (arguments.restart or "").lower() == "never"
        await finish(context, client, created, goal="completed" if never else "available")
    return exits.OK


def fields_of(arguments: argparse.Namespace) -> Any:
    """The fields of the specification that the options give."""
    fields: dict[str, Any] = {"image": arguments.image, "replicas": arguments.replicas}
    words = [*arguments.rest, *(arguments.after or [])]
    if words:
        fields["args"] = words
    if arguments.command:
        fields["command"] = [arguments.command]
    if arguments.env:
        fields["env"] = pairs("--env", arguments.env)
    if arguments.publish:
        fields["ports"] = [port_of(text) for text in arguments.publish]
    limits = {name: value for name, value in (("cpu", arguments.cpu), ("memory", arguments.memory)) if value}
    if limits:
        fields["resources"] = {"limits": limits}
    if arguments.restart:
        fields["restart_policy"] = {"policy": arguments.restart}
    return fields


def pairs(option: str, given: list[str]) -> dict[str, str]:
    """The values of a repeated K=V option.

    >>> pairs("--env", ["A=1", "B=x=y"])
    {'A': '1', 'B': 'x=y'}
    """
    result = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {text!r} is not K=V")
        result[key] = value
    return result


def port_of(text: str) -> dict[str, Any]:
    """A published port.

    >>> port_of("8080:80"), port_of("53/udp")
    ({'container_port': 80, 'publish': 8080}, {'container_port': 53, 'protocol': 'UDP'})
    """
    numbers, _, protocol = text.partition("/")
    parts = numbers.split(":")
    address = parts.pop(0) if len(parts) == 3 else ""
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UsageError(f"--publish {text!r} is not PORT:CONTAINER, for example 8080:80")
    port: dict[str, Any] = {"container_port": int(parts[-1])}
    if len(parts) == 2:
        port["publish"] = int(parts[0])
    if protocol:
        port["protocol"] = protocol.upper()
    if address:
        port["publish_address"] = address
    return port
