"""What the words of a command line name: kinds, workloads, replicas; and what was meant instead."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cloudless.cli.output.kinds import KIND_OF_WORD, KINDS, REPLICAS, WORKLOADS, Kind
from cloudless.cli.parsing import UsageError
from cloudless.domain.errors import CloudlessError, Invalid, NotFound
from cloudless.sdk.suggest import closest, did_you_mean

if TYPE_CHECKING:
    from cloudless.sdk.client import Client
    from cloudless.sdk.objects import Replica


T = TypeVar("T")


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
async def suggesting(
    client: Client, word: str, kind: Kind = WORKLOADS, *, or_kind: bool = False
) -> AsyncIterator[None]:
    """Turn "not found" into "not found, did you mean ...": one more question, only then.

    ``or_kind``: the word may have been meant as a kind.
    """
    try:
        yield
    except (NotFound, Invalid) as error:
        if isinstance(error, Invalid) and not any(path == "name" for path, _ in error.violations):
            raise
        guess = await _guess(client, word, kind, or_kind)
        if not guess or guess == word.rpartition("/")[2] or isinstance(error, Invalid):
            raise
        raise NotFound(
            f"{error.message.rstrip('.')} (did you mean {guess!r}?)", hint=error.hint, code=error.code
        ) from None


async def _guess(client: Client, word: str, kind: Kind, or_kind: bool) -> str:
    try:
        if kind.name == "node":
            return closest(word, [node.name for node in await client.nodes()])
        space, _, short = word.rpartition("/")
        known = [workload.name for workload in await client.list(space or None)]
        return closest(short, known) or (closest(short, [kind.words[0] for kind in KINDS]) if or_kind else "")
    except CloudlessError:
        return ""


async def on_target(client: Client, word: str, replica: str, call: Callable[[str, str], Awaitable[T]]) -> T:
    """``call`` with the workload and the replica that are meant by a word and by --replica.

    A word that names no workload may be the beginning of a replica's id: only then there are
    more questions. Raises ``UsageError`` and whatever ``call`` raises.
    """
    named = parse_name(word)
    if named.replica and replica:
        raise UsageError("name the replica once: NAME/ORDINAL or --replica")
    try:
        async with suggesting(client, named.workload):
            return await call(named.workload, replica or named.replica)
    except NotFound:
        found = None if replica or "/" in word else await _replica_of_id(client, word)
        if found is None:
            raise
    return await call(f"{found.namespace}/{found.workload}", found.id)


async def _replica_of_id(client: Client, word: str) -> Replica | None:
    """The one replica whose id begins so, unless a workload is called so; raises ``Invalid`` for several."""
    try:
        await client.get(word)
    except NotFound:
        try:
            return await find_replica(client, word)
        except NotFound:
            pass  # the first answer, about a workload, is the better one
    return None


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
