"""What the words of a command line name: kinds, workloads, replicas; and what was meant instead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from cloudless.cli.output.kinds import KIND_OF_WORD, KINDS, REPLICAS, WORKLOADS, Kind
from cloudless.cli.parsing import UsageError
from cloudless.domain.errors import CloudlessError, Invalid, NotFound
from cloudless.sdk.suggest import closest, did_you_mean

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.objects import Replica


class Named(NamedTuple):
    """A workload, and perhaps one of its replicas (its ordinal as text)."""

    workload: str
    replica: str = ""


def kind_and_names(words: Sequence[str]) -> tuple[Kind, list[str]]:
    """The kind and the names that ``get`` or ``describe`` is about.

    "nodes n1", "node/n1", "web" (a workload) and "web/0" (a replica) are all understood.
    """
    if not words:
        return WORKLOADS, []
    first = words[0].lower()
    if first in KIND_OF_WORD:
        kind = KIND_OF_WORD[first]
        return kind, [_without_kind(kind, word) for word in words[1:]]
    prefix = first.partition("/")[0]
    if "/" in first and prefix in KIND_OF_WORD:
        kind = KIND_OF_WORD[prefix]
        return kind, [_without_kind(kind, word) for word in words]
    replicas = all(parse_name(word).replica for word in words)
    return REPLICAS if replicas else WORKLOADS, list(words)


def _without_kind(kind: Kind, word: str) -> str:
    prefix, slash, rest = word.partition("/")
    return rest if slash and prefix in kind.words else word


def parse_name(word: str) -> Named:
    """ "web", "shop/web", "web/0", "shop/web/0".

    >>> parse_name("web/0"), parse_name("shop/web")
    (Named(workload='web', replica='0'), Named(workload='shop/web', replica=''))
    """
    head, slash, last = word.rpartition("/")
    if slash and last.isdigit() and last.isascii():
        return Named(head, last)
    if word.count("/") > 1 or not word.strip("/"):
        raise UsageError(f"{word!r} is no name; write NAME, NAMESPACE/NAME or NAME/ORDINAL")
    return Named(word)


def workload_only(word: str) -> str:
    """A word that must name a workload, not a replica; "workload/web" is understood too."""
    word = _without_kind(WORKLOADS, word)
    named = parse_name(word)
    if named.replica:
        raise UsageError(f"{word!r} names a replica; this needs a workload", hint=f"use {named.workload}")
    return named.workload


@asynccontextmanager
async def suggesting(client: Client, word: str, kind: Kind = WORKLOADS) -> AsyncIterator[None]:
    """Turn "not found" into "not found, did you mean ...": one more question, only then."""
    try:
        yield
    except (NotFound, Invalid) as error:
        if isinstance(error, Invalid) and not any(path == "name" for path, _ in error.violations):
            raise
        guess = await _guess(client, word, kind)
        if not guess or isinstance(error, Invalid):
            raise
        raise NotFound(
            f"{error.message.rstrip('.')} (did you mean {guess!r}?)", hint=error.hint, code=error.code
        ) from None


async def _guess(client: Client, word: str, kind: Kind) -> str:
    try:
        if kind.name == "node":
            return closest(word, [node.name for node in await client.nodes()])
        space, _, short = word.rpartition("/")
        known = [workload.name for workload in await client.list(space or None)]
        return closest(short, known) or closest(short, [kind.words[0] for kind in KINDS])
    except CloudlessError:
        return ""


async def find_replica(client: Client, word: str) -> Replica:
    """One replica by NAME/ORDINAL or a unique prefix of its id; raises ``NotFound``."""
    named = parse_name(word)
    if named.replica:
        async with suggesting(client, named.workload):
            replicas = await client.replicas(named.workload)
        found = [replica for replica in replicas if str(replica.ordinal) == named.replica]
        if not found:
            there = ", ".join(str(replica.ordinal) for replica in replicas) or "none"
            raise NotFound(f"workload {named.workload} has no replica {named.replica} (there are: {there})")
        return next((item for item in found if item.phase != "STOPPING"), found[0])
    everything = await client.replicas()
    matching = [replica for replica in everything if replica.id.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise Invalid(f"{word!r} begins the ids of {len(matching)} replicas", hint="give more letters")
    guess = did_you_mean(word, [replica.name for replica in everything])
    raise NotFound(f"no replica's id begins with {word!r}{guess}", hint="cloudless get replicas")
