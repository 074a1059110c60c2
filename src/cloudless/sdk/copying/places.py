"""Where things go: sources and destinations as ``cp`` and ``docker cp`` understand them. Pure.

A source that ends with "/." means what is in the folder. A destination that is a folder
takes the source in under its own name, any other gives it a new name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import NamedTuple

from cloudless.domain.errors import Invalid

Parts = tuple[str, ...]


class Source(NamedTuple):
    """A path in a replica: ``parent`` and ``base``, or with ``contents`` what is in ``parent``.

    ``folder`` says that it was written as a folder, with a slash at its end.
    """

    parent: str
    base: str
    contents: bool = False
    folder: bool = False


def source_of(path: str) -> Source:
    """What a path of a replica means.

    >>> source_of("/etc/app.conf")
    Source(parent='/etc', base='app.conf', contents=False, folder=False)
    >>> source_of("data/.")
    Source(parent='data', base='', contents=True, folder=False)
    >>> source_of("/data/")
    Source(parent='/', base='data', contents=False, folder=True)
    """
    _check(path)
    if posixpath.basename(path) == "." or path.strip("/") == "":
        return Source(path.removesuffix("/.") or "/" if path != "." else ".", "", contents=True)
    trimmed = path.rstrip("/")
    base = posixpath.basename(trimmed)
    if base == "..":
        return Source(path, "", contents=True)
    return Source(posixpath.dirname(trimmed) or ".", base, folder=trimmed != path)


def check_destination(path: str) -> str:
    """A destination in a replica; raises ``Invalid`` for one that cannot be."""
    _check(path)
    return path


def renamed(base: str, name: str) -> Callable[[Parts], Parts | None]:
    """Members called ``base`` become ``name``; nothing else was asked for.

    >>> renamed("app.conf", "mine")(("app.conf",)), renamed("a", "b")(("c",))
    (('mine',), None)
    """

    def place(parts: Parts) -> Parts | None:
        if not parts:
            return (name,)
        return (name, *parts[1:]) if parts[0] == base else None

    return place


def below(name: str) -> Callable[[Parts], Parts | None]:
    """Members of a folder, which itself becomes ``name``; with an empty name as they are.

    >>> below("copy")(("a", "b")), below("")(("a",))
    (('copy', 'a', 'b'), ('a',))
    """
    return lambda parts: (name, *parts) if name else parts


def _check(path: str) -> None:
    if not path or "\0" in path or len(path) > 4096:
        raise Invalid.field("path", "must be a path in the replica")
