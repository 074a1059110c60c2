"""Where the settings of ``cloudless serve`` come from: flags, environment, a TOML file.

A flag wins over CLOUDLESS_<NAME>, which wins over the file, which wins over the
default. Unknown keys and wrong values are refused by name and origin.
"""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudless.domain.errors import Invalid

#: A configuration file larger than this is not one.
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; ``name`` is the key in the file, ``--name`` and CLOUDLESS_NAME follow from it."""

    name: str
    default: str | bool | tuple[str, ...]
    help: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The command line's spelling."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's spelling."""
        return "CLOUDLESS_" + self.name.upper()


SETTINGS: tuple[Setting, ...] = (
    Setting("role", "all", "what this process is", ("all", "coordinator", "agent")),
    Setting("data_dir", "/var/lib/cloudless", "folder for all state of this process"),
    Setting("api_address", "127.0.0.1:8080", "where the coordinator's API listens; where an agent dials"),
    Setting("http_address", "127.0.0.1:8081", "where /health, /livez, /readyz and /metrics are served"),
    Setting("agent_address", "127.0.0.1:9092", "where the agent's own API listens"),
    Setting("store", "", "embedded (default), memory://, or etcd://host:port,host:port"),
    Setting(
        "containerd", "auto", "auto (a running one, else a private one), private, or the path of a socket"
    ),
    Setting("node_name", "", "name of this node; the host name when empty"),
    Setting("region", "", "region of this node, for placement"),
    Setting("zone", "", "zone of this node, for placement"),
    Setting("label", (), "label of this node, key=value; may be given many times"),
    Setting("taint", (), "taint of this node, key=value:no_schedule; may be given many times"),
    Setting("host_path", (), "folder that workloads may mount, with all below it; may be given many times"),
    Setting("allow_privileged", False, "let workloads ask for privileged containers and risky capabilities"),
    Setting(
        "allow_host_namespaces", False, "let workloads ask for the node's network, pid and ipc namespaces"
    ),
    Setting("network_pool", "", "IPv4 range of this node's replicas, for example 10.88.0.0/16"),
    Setting(
        "publish_address",
        (),
        "IPv4 address where ports are published besides 127.0.0.1 when a workload names none; "
        "0.0.0.0 for all; may be given many times",
    ),
    Setting("log_keep", "7d", "how long the logs of replicas that are gone are kept on this node"),
    Setting("log_keep_size", "1Gi", "how much of the logs of replicas that are gone is kept on this node"),
    Setting("log_file_size", "10Mi", "a replica's log goes on in a new file at this size"),
    Setting("log_files", "5", "files of a replica's log that are kept; older ones are deleted"),
    Setting(
        "log_level", "info", "least severe log line that is written", ("debug", "info", "warning", "error")
    ),
    Setting(
        "log_format", "auto", "auto (text on a terminal, else JSON), json, or text", ("auto", "json", "text")
    ),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def parser() -> argparse.ArgumentParser:
    """The command line of ``cloudless serve``."""
    made = argparse.ArgumentParser(
        prog="cloudless serve",
        description="Run the coordinator, the agent, or both in one process (the default).",
        epilog="Each setting is also read from CLOUDLESS_<NAME> and from the TOML file given by --config.",
        allow_abbrev=False,
    )
    made.add_argument("--config", help="TOML file with settings, for example region = 'eu'")
    for setting in SETTINGS:
        text = setting.help
        if isinstance(setting.default, str) and setting.default:
            text += f" (default: {setting.default})"
        if setting.default is False:
            made.add_argument(setting.flag, action="store_const", const=True, help=text, dest=setting.name)
        elif isinstance(setting.default, tuple):
            made.add_argument(setting.flag, action="append", metavar="VALUE", help=text, dest=setting.name)
        else:
            choices = setting.choices or None
            metavar = None if choices else "VALUE"
            made.add_argument(setting.flag, choices=choices, metavar=metavar, help=text, dest=setting.name)
    return made


def resolve(argv: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """All settings by name; raises ``Invalid`` that names the origin of a wrong one."""
    flags = vars(parser().parse_args(argv))
    path = flags.pop("config") or environment.get("CLOUDLESS_CONFIG", "")
    given = {name: value for name, value in flags.items() if value is not None}
    file = _from_file(Path(path)) if path else {}
    result: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.name in given:
            value, origin = given[setting.name], setting.flag
        elif setting.variable in environment:
            value, origin = _from_text(setting, environment[setting.variable]), setting.variable
        elif setting.name in file:
            value, origin = file[setting.name], f"{path}: {setting.name}"
        else:
            value, origin = setting.default, "default"
        result[setting.name] = _checked(setting, value, origin)
    return result


def _from_text(setting: Setting, text: str) -> Any:
    if setting.default is False:
        if text.lower() not in ("1", "0", "true", "false", "yes", "no", ""):
            raise Invalid.field(setting.variable, "must be true or false")
        return text.lower() in ("1", "true", "yes")
    if isinstance(setting.default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _from_file(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Invalid.field("--config", f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise Invalid.field("--config", f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        found = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid.field("--config", f"{path} is not TOML: {error}") from None
    for key in found:
        if key.replace("-", "_") not in _BY_NAME:
            near = difflib.get_close_matches(key, list(_BY_NAME), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(_BY_NAME)}"
            raise Invalid.field(f"{path}: {key}", "is not a known setting", hint=hint)
    return {key.replace("-", "_"): value for key, value in found.items()}


def _checked(setting: Setting, value: Any, origin: str) -> Any:
    if isinstance(setting.default, tuple):
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise Invalid.field(origin, "must be a list of texts")
        return tuple(value)
    if not isinstance(value, type(setting.default)):
        raise Invalid.field(origin, f"must be {'true or false' if setting.default is False else 'a text'}")
    if setting.choices and value not in setting.choices:
        raise Invalid.field(origin, f"must be one of {', '.join(setting.choices)}")
    return value
