"""Which store: ``memory://``, ``embedded:///directory``, ``etcd://host:port,host:port/prefix``.

The composition root calls ``open_store`` with what the operator wrote. An etcd URL may
carry ``user:password@`` (or ``?user=..&password_file=..``, which no process list shows) and
``?ca=..&cert=..&key=..`` with paths of PEM files; ``ca`` turns TLS on. gRPC is imported
only for etcd, SQLite only for the embedded store.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from cloudless.aio.clock import Clock
from cloudless.store.errors import InvalidRequest
from cloudless.store.port import Store

DEFAULT_ETCD_PORT: Final = 2379
_FORMS: Final = "memory://, embedded:///directory or etcd://host:port,host:port/prefix"
_PARAMETERS: Final = frozenset({"ca", "cert", "key", "user", "password_file"})


@dataclass(frozen=True, slots=True)
class MemoryUrl:
    """A store that is lost at the end."""


@dataclass(frozen=True, slots=True)
class EmbeddedUrl:
    """A store in a directory of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class EtcdUrl:
    """A store on an etcd cluster; ``prefix`` stands before every key (``""``: none)."""

    endpoints: tuple[str, ...]
    prefix: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str = ""
    password: str = ""
    password_file: Path | None = None


StoreUrl = MemoryUrl | EmbeddedUrl | EtcdUrl


def parse_store_url(url: str) -> StoreUrl:
    """Read a store URL. Raises ``InvalidRequest`` that says what is wrong with it.

    >>> parse_store_url("etcd://10.0.0.1,10.0.0.2:2380/prod").endpoints
    ('10.0.0.1:2379', '10.0.0.2:2380')
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidRequest(f"store {url!r} is not a URL: {error}") from error
    match parts.scheme:
        case "memory" if not (parts.netloc or parts.path.strip("/") or parts.query):
            return MemoryUrl()
        case "embedded" if parts.path and not (parts.netloc or parts.query):
            return EmbeddedUrl(Path(unquote(parts.path)))
        case "etcd" if parts.netloc:
            return _etcd(url, parts)
        case _:
            raise InvalidRequest(f"store {url!r} is not one of {_FORMS}")


def open_store(url: str, clock: Clock, *, new_id: Callable[[], str]) -> AbstractAsyncContextManager[Store]:
    """The store that ``url`` names, open as long as the block.

    ``new_id`` gives the identity of a new embedded store's data. Raises ``InvalidRequest``
    for a bad URL, ``OSError`` for a file that cannot be read, and what ``open_embedded``
    raises.
    """
    match parse_store_url(url):
        case MemoryUrl():
            from cloudless.store.memory import open_memory

            return open_memory(clock)
        case EmbeddedUrl(path):
            from cloudless.store.embedded import open_embedded

            return open_embedded(path, clock, new_id=new_id)
        case EtcdUrl() as etcd:
            return _open_etcd(etcd, clock)


def _open_etcd(etcd: EtcdUrl, clock: Clock) -> AbstractAsyncContextManager[Store]:
    from cloudless.store.etcd.client import open_etcd
    from cloudless.store.etcd.connection import Credentials

    password = etcd.password
    if etcd.password_file is not None:
        password = etcd.password_file.read_text().strip()
    credentials = Credentials(
        ca_pem=_content(etcd.ca),
        cert_pem=_content(etcd.cert),
        key_pem=_content(etcd.key),
        user=etcd.user,
        password=password,
    )
    return open_etcd(etcd.endpoints, credentials, clock, namespace=etcd.prefix)


def _etcd(url: str, parts: SplitResult) -> EtcdUrl:
    login, _, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(given.keys() - _PARAMETERS)
    if unknown:
        raise InvalidRequest(f"store {url!r}: unknown parameter {unknown[0]!r}")
    if ("cert" in given) != ("key" in given):
        raise InvalidRequest(f"store {url!r}: cert and key come together")
    if "cert" in given and "ca" not in given:
        raise InvalidRequest(f"store {url!r}: a client certificate needs ca as well")
    prefix = unquote(parts.path).strip("/")
    return EtcdUrl(
        endpoints=tuple(_endpoint(url, host) for host in hosts.split(",")),
        prefix=f"/{prefix}/" if prefix else "",
        ca=_path(given, "ca"),
        cert=_path(given, "cert"),
        key=_path(given, "key"),
        user=given.get("user", unquote(user)),
        password=unquote(password),
        password_file=_path(given, "password_file"),
    )


def _endpoint(url: str, host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port or DEFAULT_ETCD_PORT
    except ValueError as error:
        raise InvalidRequest(f"store {url!r}: endpoint {host!r}: {error}") from error
    if not parts.hostname:
        raise InvalidRequest(f"store {url!r}: an endpoint has no host")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{name}:{port}"


def _path(given: dict[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None


def _content(path: Path | None) -> bytes:
    return b"" if path is None else path.read_bytes()
