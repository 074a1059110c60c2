"""List, pull, remove and import images of this node.

Talks to the agent on this machine (--agent-address), not to the coordinator. --timeout is for
each pull or import as a whole, 30 minutes by default.

  cloudless image ls
  cloudless image pull REFERENCE
  cloudless image rm REFERENCE ...
  cloudless image import FILE        an OCI or docker archive; - is standard input"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, BinaryIO

from cloudless.cli import exits
from cloudless.cli.changing import add_output_option
from cloudless.cli.context import Context
from cloudless.cli.output.formats import Format, parse_format, write
from cloudless.cli.output.words import size
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral
from cloudless.domain.errors import Invalid

if TYPE_CHECKING:
    from cloudless import api
    from cloudless.sdk.node_agent import AgentClient

ACTIONS = ("ls", "pull", "rm", "import")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument("action", nargs="?", default="ls", choices=ACTIONS, help="what to do; ls by default")
    parser.add_argument("words", nargs="*", metavar="REFERENCE | FILE", help="images, or archives to import")
    parser.add_argument("--agent-address", metavar="HOST:PORT", help="the agent, 127.0.0.1:9092 by default")
    parser.add_argument("--name", metavar="REFERENCE", default="", help="name for an archive that has none")
    parser.add_argument(
        "--username", default="", help="for the registry; CLOUDLESS_PASSWORD has the password"
    )
    parser.add_argument("--no-headers", action="store_true", help="leave out the titles of a table")
    add_output_option(parser, default=None)


async def run(context: Context) -> int:
    """Do it."""
    arguments = context.arguments
    if arguments.action == "ls":
        return await list_images(context, parse_format(arguments.output or "table"))
    if not arguments.words:
        what = "which file?" if arguments.action == "import" else "which image?"
        raise UsageError(what, hint=f"cloudless image {arguments.action} ...")
    if arguments.action == "rm" and arguments.output is not None:
        raise UsageError("image rm leaves nothing that -o could show")
    images: list[api.Image] = []
    async with _agent(context) as agent:
        for word in arguments.words:
            if arguments.action == "pull":
                images += await _pull(context, agent, word)
            elif arguments.action == "rm":
                await agent.remove_image(word)
                context.out.line(f"image/{neutral(word)} removed")
            else:
                images += await _import(context, agent, word)
    if arguments.output is not None:
        from cloudless.cli.output.kinds import IMAGES

        # An archive may hold any number of images, so what comes of it is a list.
        single = arguments.action == "pull" and len(images) == 1
        form = parse_format(arguments.output)
        header = not arguments.no_headers
        write(context.out, IMAGES, images, form, context.clock.now(), single=single, with_header=header)
    return exits.OK


async def list_images(context: Context, form: Format) -> int:
    """``image ls`` and ``get images``."""
    from cloudless.cli.output.kinds import IMAGES

    async with _agent(context) as agent:
        images = sorted(await agent.images(), key=lambda image: image.reference)
    if not images and form.name in ("table", "wide"):
        context.err.line("no images")
        return exits.OK
    now = context.clock.now()
    write(context.out, IMAGES, images, form, now, with_header=not context.arguments.no_headers)
    return exits.OK


def _agent(context: Context) -> AgentClient:
    from cloudless.sdk.node_agent import DEFAULT_AGENT_ADDRESS, AgentClient

    given = getattr(context.arguments, "agent_address", None) or os.environ.get("CLOUDLESS_AGENT_ADDRESS")
    timeout_s: float | None = context.arguments.timeout
    address = given or DEFAULT_AGENT_ADDRESS
    return AgentClient(address) if timeout_s is None else AgentClient(address, timeout_s=timeout_s)


def _limit_s(context: Context) -> float:
    """How long one pull or import may take."""
    from cloudless.sdk.node_agent import TRANSFER_TIMEOUT_S

    timeout_s: float | None = context.arguments.timeout
    return TRANSFER_TIMEOUT_S if timeout_s is None else timeout_s


async def _pull(context: Context, agent: AgentClient, reference: str) -> list[api.Image]:
    """The image, which is told of here unless -o wants it."""
    from cloudless import api

    secret = None
    if context.arguments.username:
        secret = api.PullSecret(
            server=reference.partition("/")[0],
            username=context.arguments.username,
            password=os.environ.get("CLOUDLESS_PASSWORD", ""),
        )
    meter = Meter(context.err, neutral(reference))
    image = None
    steps_of = agent.pull_image(reference, secret, timeout_s=_limit_s(context))
    async with aclosing(steps_of) as steps:  # type: ignore[type-var]
        async for step in steps:
            image = step.image or image
            meter.show(step.stage, step.offset_bytes, step.total_bytes)
    meter.end()
    if context.arguments.output is None:
        digest = f" {neutral(image.digest)}" if image is not None else ""
        context.out.line(f"image/{neutral(reference)} pulled{digest}")
    return [image] if image is not None else []


async def _import(context: Context, agent: AgentClient, path: str) -> list[api.Image]:
    """The images of an archive, which are told of here unless -o wants them."""
    meter = Meter(context.err, neutral(path))
    try:
        file: BinaryIO = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115, ASYNC230
    except OSError as error:
        raise Invalid(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    with file:
        total = 0 if path == "-" else os.fstat(file.fileno()).st_size
        images = await agent.import_image(
            _pieces(file, total, meter), context.arguments.name, timeout_s=_limit_s(context)
        )
    meter.end()
    if context.arguments.output is None:
        for image in images:
            context.out.line(f"image/{neutral(image.reference)} imported {neutral(image.digest)}")
    return images


def _pieces(file: BinaryIO, total: int, meter: Meter) -> Iterator[bytes]:
    from cloudless.sdk.limits import IMPORT_PIECE_BYTES

    sent = 0
    while data := file.read(IMPORT_PIECE_BYTES):
        sent += len(data)
        meter.show("importing", sent, total)
        yield data


class Meter:
    """How far something is: in place on a terminal, one line per stage on a pipe."""

    def __init__(self, terminal: Terminal, name: str) -> None:
        self._terminal = terminal
        self._name = name
        self._stage = ""
        self._painted = False

    def show(self, stage: str, done_bytes: int, total_bytes: int) -> None:
        """Show a stage and how much of it is done."""
        if self._terminal.can_repaint:
            amount = size(done_bytes) + (f" of {size(total_bytes)}" if total_bytes else "")
            self._terminal.write(f"\r\x1b[K{self._name}  {neutral(stage)}  {amount}")
            self._terminal.stream.flush()
            self._painted = True
        elif stage != self._stage:
            self._terminal.line(f"{self._name}: {neutral(stage)}")
        self._stage = stage

    def end(self) -> None:
        """Take the line away."""
        if self._painted:
            self._terminal.write("\r\x1b[K")
            self._terminal.stream.flush()
