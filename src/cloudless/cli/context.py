"""What every verb works with: its arguments, its streams, and the client."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from cloudless.aio.clock import Clock
from cloudless.cli.terminal import ColorChoice, Terminal
from cloudless.sdk.targets import Target, find_target

if TYPE_CHECKING:
    from cloudless.sdk.client import Client

#: A person does not wait long for a coordinator that is not there.
FIRST_PATIENCE_S = 0.0
#: Once it has answered, it may be away for this long.
PATIENCE_S = 30.0


class Context:
    """One run of one verb. ``target`` is found when it is needed first."""

    def __init__(self, arguments: argparse.Namespace, clock: Clock) -> None:
        self.arguments = arguments
        self.clock = clock
        color: ColorChoice = getattr(arguments, "color", None) or "auto"
        self.out = Terminal(sys.stdout, os.environ, color)
        self.err = Terminal(sys.stderr, os.environ, color)
        self._target: Target | None = None

    @property
    def target(self) -> Target:
        """Address and namespace that this command is about."""
        if self._target is None:
            found = find_target(self.arguments.address, self.arguments.context)
            if self.arguments.namespace:
                found = found._replace(namespace=self.arguments.namespace)
            self._target = found
        return self._target

    @property
    def known_target(self) -> Target | None:
        """The target if it was found already: for messages about errors."""
        return self._target

    @property
    def namespace(self) -> str:
        """The namespace of names without one; empty for all of them (``-A``)."""
        return "" if getattr(self.arguments, "all_namespaces", False) else self.target.namespace

    def pin_context(self, name: str) -> None:
        """Use the context that a manifest names; an explicit option wins over it."""
        if self.arguments.context is None and self.arguments.address is None:
            self.arguments.context = name
            self._target = None

    def client(self, *, patience_s: float = FIRST_PATIENCE_S) -> Client:
        """A client, to be used as ``async with``."""
        from cloudless.sdk.client import Client

        options: dict[str, Any] = {}
        if self.arguments.timeout is not None:
            options["timeout_s"] = self.arguments.timeout
        return Client(self.target, patience_s=patience_s, **options)
