"""What an image says about how to run it (pure).

All of it is written by a stranger: sizes and types are checked here, and nothing of it
is trusted further on. Labels of the image are left out on purpose: copied into a
container's labels they would give orders to plugins of containerd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidImage
from cloudless.containerd.untrusted import is_text, read_json


@dataclass(frozen=True)
class ImageConfig:
    """Defaults that a workload's spec may override; ``ports`` as "80/tcp"; ``env`` as "K=V"."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    architecture: str = ""
    os: str = ""

    def argv(self, command: Sequence[str], args: Sequence[str]) -> tuple[str, ...]:
        """The process' arguments: ``command`` replaces the entrypoint, ``args`` the default ones.

        A command that is given without args runs without the image's default arguments.

        >>> ImageConfig(entrypoint=("/run",), command=("serve",)).argv((), ("stop",))
        ('/run', 'stop')
        """
        if command:
            return (*command, *args)
        return (*self.entrypoint, *(args or self.command))


def parse_config(data: bytes) -> tuple[ImageConfig, tuple[str, ...]]:
    """The config and its layers' diff ids, lowest first. Raises ``InvalidImage``."""
    whole = read_json(data, "the image's config")
    if not isinstance(whole, dict):
        raise InvalidImage("the image's config is not a JSON object")
    inner = _object(whole, "config")
    diff_ids = _strings(_object(whole, "rootfs"), "diff_ids")
    if len(diff_ids) > limits.MAX_LAYERS:
        raise InvalidImage(f"the image has {len(diff_ids)} layers, more than {limits.MAX_LAYERS}")
    config = ImageConfig(
        entrypoint=_strings(inner, "Entrypoint"),
        command=_strings(inner, "Cmd"),
        env=_strings(inner, "Env"),
        user=_string(inner, "User"),
        working_dir=_string(inner, "WorkingDir"),
        stop_signal=_string(inner, "StopSignal"),
        ports=tuple(sorted(_object(inner, "ExposedPorts"))),
        volumes=tuple(sorted(_object(inner, "Volumes"))),
        architecture=_string(whole, "architecture"),
        os=_string(whole, "os"),
    )
    return config, diff_ids


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidImage(f"the image's config: {key} is not an object")
    return value


def _string(parent: dict[str, Any], key: str) -> str:
    value = parent.get(key)
    if value is None:
        return ""
    if not is_text(value):
        raise InvalidImage(f"the image's config: {key} is not a text")
    return str(value)


def _strings(parent: dict[str, Any], key: str) -> tuple[str, ...]:
    value = parent.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(is_text(one) for one in value):
        raise InvalidImage(f"the image's config: {key} is not a list of texts")
    return tuple(value)
