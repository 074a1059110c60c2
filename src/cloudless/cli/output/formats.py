"""``-o``: which format, and writing objects in it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from cloudless.cli.output.kinds import NAMESPACE, WORKLOADS, Column, Kind
from cloudless.cli.output.table import lines_of
from cloudless.cli.parsing import UsageError
from cloudless.cli.terminal import Terminal, neutral
from cloudless.sdk.suggest import did_you_mean

NAMES = ("table", "wide", "json", "yaml", "name", "jsonpath=...", "custom-columns=...")


class Format(NamedTuple):
    """``expression`` belongs to jsonpath and custom-columns."""

    name: str
    expression: str = ""


def parse_format(text: str) -> Format:
    """Read the value of ``-o``; raises ``UsageError``."""
    name, equals, expression = text.partition("=")
    if name in ("jsonpath", "custom-columns"):
        if not expression:
            raise UsageError(f"-o {name} needs an expression, for example -o jsonpath='{{.status.message}}'")
        return Format(name, expression)
    if equals or name not in ("table", "wide", "json", "yaml", "name"):
        guess = did_you_mean(name, [known.partition("=")[0] for known in NAMES])
        raise UsageError(f"-o {text!r} is not one of {', '.join(NAMES)}{guess}")
    return Format(name)


def write(
    terminal: Terminal,
    kind: Kind,
    items: Sequence[Any],
    form: Format,
    now: datetime.datetime,
    *,
    single: bool = False,
    with_namespace: bool = False,
    with_header: bool = True,
) -> None:
    """Write messages; ``single``: one object was asked for by name, not a list."""
    if form.name in ("table", "wide"):
        columns = columns_of(kind, form, with_namespace=with_namespace)
        header = [column.title for column in columns]
        rows = [[column.read(item, now) for column in columns] for item in items]
        for line in lines_of(header, rows, terminal, with_header=with_header):
            terminal.write(line + "\n")
    elif form.name == "name":
        for item in items:
            terminal.write(neutral(kind.name_of(item)) + "\n")
    elif form.name == "yaml":
        from cloudless.cli.output.yaml import write_yaml

        write_yaml(terminal, kind, items)
    else:
        _write_values(terminal, kind, items, form, single=single)


def columns_of(kind: Kind, form: Format, *, with_namespace: bool) -> list[Column]:
    """The columns of the table; a namespace before them when there are several."""
    chosen = [column for column in kind.columns if form.name == "wide" or not column.wide]
    if with_namespace and kind.namespaced and kind is not WORKLOADS:
        return [NAMESPACE, *chosen]
    return [NAMESPACE, *chosen] if with_namespace and kind.namespaced else chosen


def _write_values(
    terminal: Terminal, kind: Kind, items: Sequence[Any], form: Format, *, single: bool
) -> None:
    values = [kind.plain(item) for item in items]
    if form.name == "json":
        whole = values[0] if single and values else {"items": values}
        terminal.write(json.dumps(whole, indent=2, ensure_ascii=not terminal.unicode) + "\n")
        return
    from cloudless.cli.output import paths

    if form.name == "jsonpath":
        terminal.write(paths.template(form.expression, values[0] if single and values else {"items": values}))
        terminal.write("\n")
        return
    titles, rows = paths.custom_columns(form.expression, values)
    for line in lines_of(titles, rows, terminal):
        terminal.write(line + "\n")


def json_line(kind: Kind, item: Any, **more: Any) -> str:
    """One object on one line, for watches."""
    return json.dumps({**more, "object": kind.plain(item)}, separators=(",", ":"))
