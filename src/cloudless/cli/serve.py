"""``cloudless serve``: start the roles. The one place of the CLI that knows them.

Reads the settings, opens the coordinator and the agent as the role says, waits for a
signal, and closes them in the opposite order. Errors of the start are told to a person;
a second signal ends the process at once (containers run on either way).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cloudless.cli import exits
from cloudless.cli.problems import show
from cloudless.cli.serve_settings import resolve
from cloudless.cli.terminal import Terminal
from cloudless.domain.address import split_address
from cloudless.domain.errors import CloudlessError, FieldViolation, Invalid
from cloudless.domain.model import violations_of
from cloudless.domain.quantity import parse_bytes, parse_duration

log = logging.getLogger(__name__)

#: Net allocations before young objects are looked through, and how often the older ones are.
GC_THRESHOLDS = (10_000, 20, 20)
#: Settings whose names in the roles' configurations differ from the flag's.
_RENAMED = {
    "network_pool": "network_range",
    "label": "labels",
    "taint": "taints",
    "host_path": "host_paths",
    "publish_address": "publish_addresses",
}


def serve(argv: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT; the exit code of the process."""
    gc.enable()  # short commands go without; this one lives long
    os.umask(os.umask(0o022) | 0o022)  # whoever starts us: nobody else writes what we make
    try:
        settings = resolve(argv, os.environ)
        _configure_logs(settings)
        return _run(settings)
    except CloudlessError as error:
        show(error, Terminal(sys.stderr, os.environ))
        return exits.USAGE if isinstance(error, Invalid) else exits.ERROR


def _run(settings: dict[str, Any]) -> int:
    import uvloop

    roles = ("coordinator", "agent") if settings["role"] == "all" else (settings["role"],)
    if "agent" in roles and os.geteuid() != 0:
        raise Invalid(
            "the agent needs root: it makes network namespaces and mounts",
            hint="run it with sudo, or only the coordinator with --role coordinator",
        )
    configs = {role: _config(role, settings) for role in roles}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(configs))
    return 0


async def _serve(configs: dict[str, Any]) -> None:
    from cloudless.aio.clock import SystemClock
    from cloudless.aio.ids import random_id

    clock = SystemClock()
    stopping = _stop_on_signals()
    async with contextlib.AsyncExitStack() as stack:
        waits: list[Callable[[], Coroutine[Any, Any, object]]] = [stopping.wait]
        if "coordinator" in configs:
            from cloudless.coordinator.main import coordinator

            running = await stack.enter_async_context(
                coordinator(configs["coordinator"], clock, new_id=random_id)
            )
            waits.append(running.wait)
            if "agent" in configs:
                # The kernel may have chosen the port, and the machine may be reached by another name.
                host, _ = split_address(configs["coordinator"].api_address)
                address = f"[{host}]:{running.api_port}" if ":" in host else f"{host}:{running.api_port}"
                configs["agent"] = configs["agent"].replaced(coordinator_address=address)
        if "agent" in configs:
            from cloudless.agent.main import agent

            node = await stack.enter_async_context(agent(configs["agent"], clock, new_id=random_id))
            waits.append(node.wait)
        _spare_the_collector()
        log.info("serving", extra={"roles": sorted(configs), "pid": os.getpid()})
        await _first(waits)
        log.info("stopping")


def _spare_the_collector() -> None:
    """What was made by now stays for good: no collection shall walk through it again.

    A full one takes 40 ms otherwise, which every hundredth request would feel.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _first(waits: Sequence[Callable[[], Coroutine[Any, Any, object]]]) -> None:
    """Wait until a signal comes or a role fails; a role's failure is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait()) for wait in waits]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # one role failed: its error is the story


def _stop_on_signals() -> asyncio.Event:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(128 + signal.SIGTERM)  # asked twice: do not wait for anything
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping


def _config(role: str, settings: dict[str, Any]) -> Any:
    if role == "coordinator":
        from cloudless.coordinator.config import CoordinatorConfig

        keys = ("data_dir", "api_address", "http_address", "store")
        return _validated(CoordinatorConfig, {key: settings[key] for key in keys})
    from cloudless.agent.config import AgentConfig

    given: dict[str, Any] = {
        "data_dir": settings["data_dir"],
        "coordinator_address": settings["api_address"],
        "labels": dict(_pair(text, "--label") for text in settings["label"]),
        "taints": tuple(_taint(text) for text in settings["taint"]),
        "host_paths": settings["host_path"],
        "publish_addresses": settings["publish_address"],
        "logs": _log_settings(settings),
    }
    for key in ("agent_address", "containerd", "allow_privileged", "allow_host_namespaces", "region", "zone"):
        given[key] = settings[key]
    for key in ("node_name", "network_pool"):
        if settings[key]:
            given[_RENAMED.get(key, key)] = settings[key]
    return _validated(AgentConfig, given)


_FIELD = re.compile(r"([^.\[]*)(.*)", re.DOTALL)


def _validated(model: Any, given: dict[str, Any]) -> Any:
    try:
        return model.model_validate({**given, "data_dir": Path(given["data_dir"])})
    except ValidationError as error:
        names = {new: old for old, new in _RENAMED.items()} | {"coordinator_address": "api_address"}
        found = []
        for path, description in violations_of(error):
            # A flag that may be given many times is a list in the configuration: name[0].
            name, rest = _FIELD.fullmatch(path).groups()  # type: ignore[union-attr]
            flag = "--" + names.get(name, name).replace("_", "-")
            found.append(FieldViolation(flag + rest, description))
        raise Invalid(violations=tuple(found)) from None


def _log_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """How much is kept of replicas' logs."""
    from cloudless.agent.config import LogSettings

    found: dict[str, Any] = {}
    for name, (field, parse) in _LOG_SETTINGS.items():
        flag = "--" + name.replace("_", "-")
        try:
            found[field] = parse(settings[name])
            LogSettings.model_validate({field: found[field]})
        except ValidationError as error:
            raise Invalid.field(flag, violations_of(error)[0][1]) from None
        except ValueError as error:
            raise Invalid.field(flag, str(error)) from None
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"{text[:40]!r} is not a number")
    return int(text)


_LOG_SETTINGS: dict[str, tuple[str, Callable[[str], float]]] = {
    "log_keep": ("keep_dead_s", lambda text: parse_duration(text).total_seconds()),
    "log_keep_size": ("keep_dead_bytes", parse_bytes),
    "log_file_size": ("file_bytes", parse_bytes),
    "log_files": ("files", _count),
}


def _pair(text: str, flag: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise Invalid.field(flag, f"{text[:60]!r} must be key=value")
    return key, value


def _taint(text: str) -> dict[str, str]:
    rest, _, effect = text.partition(":")
    key, _, value = rest.partition("=")
    if effect not in ("no_schedule", "no_execute") or not key:
        raise Invalid.field("--taint", f"{text[:60]!r} must be key=value:no_schedule or key=value:no_execute")
    return {"key": key, "value": value, "effect": effect}


def _configure_logs(settings: dict[str, Any]) -> None:
    from cloudless.telemetry.logs import configure

    as_json = None if settings["log_format"] == "auto" else settings["log_format"] == "json"
    configure(json_lines=as_json, level=settings["log_level"].upper(), stream=sys.stderr)


def reset(argv: Sequence[str]) -> int:
    """``cloudless reset``: remove all that serving from a data directory made here."""
    parser = argparse.ArgumentParser(
        prog="cloudless reset",
        description="Remove all containers, networks, images and state that 'cloudless serve' made "
        "on this machine in one data directory. Nothing may serve from it meanwhile.",
    )
    parser.add_argument("--data-dir", default="/var/lib/cloudless", help="(default: %(default)s)")
    parser.add_argument(
        "--containerd", default="auto", help="as it was given to serve (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    given = parser.parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise Invalid("reset needs root", hint="run it with sudo")
        if not given.yes and not _agreed(given.data_dir):
            return exits.ERROR
        return _reset(given.data_dir, given.containerd)
    except CloudlessError as error:
        show(error, Terminal(sys.stderr, os.environ))
        return exits.USAGE if isinstance(error, Invalid) else exits.ERROR


def _reset(data_dir: str, containerd: str) -> int:
    from cloudless.agent.config import AgentConfig
    from cloudless.agent.reset import reset as reset_node
    from cloudless.aio.clock import SystemClock
    from cloudless.aio.ids import random_id

    config = _validated(AgentConfig, {"data_dir": data_dir, "containerd": containerd})
    report = asyncio.run(reset_node(config, SystemClock(), random_id))
    sys.stdout.writelines(f"removed {line}\n" for line in report.removed)
    sys.stdout.writelines(f"left {line}\n" for line in report.left)
    return exits.OK


def _agreed(data_dir: str) -> bool:
    if not sys.stdin.isatty():
        raise Invalid(f"this removes everything in {data_dir}", hint="say --yes when that is meant")
    sys.stderr.write(f"Remove everything that Cloudless made on this machine ({data_dir})? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
