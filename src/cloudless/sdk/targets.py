"""Which coordinator is meant: argument, environment, configuration file, default.

``connect`` and the CLI call ``find_target``. The file is
``~/.config/cloudless/config.toml`` (or CLOUDLESS_CONFIG)::

    current = "prod"
    [contexts.prod]
    address = "10.0.0.5:8080"
    namespace = "shop"
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudless.domain.errors import Invalid

DEFAULT_ADDRESS = "127.0.0.1:8080"
DEFAULT_NAMESPACE = "default"
_CONTEXT_KEYS = frozenset({"address", "namespace"})


class Target(NamedTuple):
    """Where to connect; ``source`` says who decided it, for error messages."""

    address: str
    namespace: str = DEFAULT_NAMESPACE
    context: str = ""
    source: str = "default"


def find_target(
    address: str | None = None, context: str | None = None, environ: Mapping[str, str] | None = None
) -> Target:
    """The first of: ``address``, ``context``, CLOUDLESS_ADDRESS, CLOUDLESS_CONTEXT, the file, the default.

    Raises ``Invalid`` for a broken file and ``NotFound`` semantics as ``Invalid`` for an
    unknown context.
    """
    environ = os.environ if environ is None else environ
    namespace = environ.get("CLOUDLESS_NAMESPACE") or DEFAULT_NAMESPACE
    if address:
        return Target(address, namespace, source="argument")
    if not context and environ.get("CLOUDLESS_ADDRESS"):
        return Target(environ["CLOUDLESS_ADDRESS"], namespace, source="CLOUDLESS_ADDRESS")
    path = config_path(environ)
    known = _read(path)
    name = context or environ.get("CLOUDLESS_CONTEXT") or known.get("current", "")
    if not name:
        return Target(DEFAULT_ADDRESS, namespace)
    contexts = known.get("contexts", {})
    if name not in contexts:
        there = ", ".join(sorted(contexts)) or "none"
        raise Invalid(f"context {name!r} is not in {path}", hint=f"choose one of: {there}")
    chosen = contexts[name]
    return Target(
        chosen.get("address", DEFAULT_ADDRESS),
        environ.get("CLOUDLESS_NAMESPACE") or chosen.get("namespace") or DEFAULT_NAMESPACE,
        name,
        path,
    )


def config_path(environ: Mapping[str, str]) -> str:
    """Where the configuration file is, whether it exists or not."""
    if environ.get("CLOUDLESS_CONFIG"):
        return environ["CLOUDLESS_CONFIG"]
    base = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "/", ".config")
    return os.path.join(base, "cloudless", "config.toml")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            import tomllib  # only those who have a file pay for its parser

            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{path} is not valid TOML: {error}") from None
    _check(path, content)
    return content


def _check(path: str, content: dict[str, Any]) -> None:
    for key in content.keys() - {"current", "contexts"}:
        raise Invalid(f"{path}: unknown key {key!r}", hint="known keys: current, contexts")
    contexts = content.get("contexts", {})
    if not isinstance(content.get("current", ""), str) or not isinstance(contexts, dict):
        raise Invalid(f"{path}: current must be a text, contexts a table")
    for name, context in contexts.items():
        if not isinstance(context, dict) or not all(isinstance(value, str) for value in context.values()):
            raise Invalid(f"{path}: contexts.{name} must be a table of texts")
        for key in context.keys() - _CONTEXT_KEYS:
            raise Invalid(
                f"{path}: unknown key {key!r} in contexts.{name}", hint="known keys: address, namespace"
            )
