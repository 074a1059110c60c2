"""Who a container runs as: USER of an image against its passwd and group files (pure).

The files come from images and containers, so from strangers: they are read with
limits (see ``rootfs``) and lines that make no sense are passed over. The rules are
docker's: a name or a number, "user" or "user:group"; supplementary groups only when
no group is given. A number is never looked for among the names: an image that names an
account "1000" must not decide whom ``run_as_user: 1000`` means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidRequest
from cloudless.containerd.plan import User


@dataclass(frozen=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(user: str, passwd: bytes, group: bytes) -> User:
    """The ids that ``user`` means; empty means root. Raises ``InvalidRequest``.

    >>> resolve_user("web", b"web:x:1001:1002::/srv:/bin/sh", b"log:x:7:web")
    User(uid=1001, gid=1002, groups=(7,), home='/srv')
    >>> resolve_user("5:6", b"", b"")
    User(uid=5, gid=6, groups=(), home='/')
    """
    wanted, colon, wanted_group = user.partition(":")
    account = _find_account(wanted or "0", passwd)
    if colon and wanted_group:
        return User(account.uid, _find_gid(wanted_group, group), (), account.home)
    groups = tuple(
        dict.fromkeys(
            entry.gid
            for entry in _groups(group)
            if account.name and account.name in entry.members and entry.gid != account.gid
        )
    )
    return User(account.uid, account.gid, groups[: limits.MAX_SUPPLEMENTAL_GROUPS], account.home)


def _find_account(wanted: str, passwd: bytes) -> _Account:
    number = _number(wanted)
    for account in _accounts(passwd):
        if account.uid == number if number is not None else account.name == wanted:
            return account
    if number is None:
        raise InvalidRequest(f"user {wanted!r} is not in the image's /etc/passwd")
    return _Account("", _checked(number, "user"), 0, "/root" if number == 0 else "/")


def _find_gid(wanted: str, group: bytes) -> int:
    number = _number(wanted)
    if number is not None:
        return _checked(number, "group")
    for entry in _groups(group):
        if entry.name == wanted:
            return entry.gid
    raise InvalidRequest(f"group {wanted!r} is not in the image's /etc/group")


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for fields in _lines(passwd):
        if len(fields) < 4 or not fields[0]:
            continue
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None or uid > limits.MAX_ID or gid > limits.MAX_ID:
            continue
        home = fields[5] if len(fields) > 5 and fields[5].startswith("/") else "/"
        yield _Account(fields[0], uid, gid, home)


def _groups(group: bytes) -> Iterator[_Group]:
    for fields in _lines(group):
        if len(fields) < 3 or not fields[0]:
            continue
        gid = _number(fields[2])
        if gid is None or gid > limits.MAX_ID:
            continue
        members = tuple(fields[3].split(",")) if len(fields) > 3 else ()
        yield _Group(fields[0], gid, members)


def _lines(data: bytes) -> Iterator[list[str]]:
    for line in data[: limits.MAX_ACCOUNT_FILE_BYTES].split(b"\n"):
        if len(line) <= limits.MAX_ACCOUNT_LINE_BYTES and not line.startswith(b"#"):
            yield line.decode(errors="replace").strip().split(":")


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


def _checked(number: int, what: str) -> int:
    if number > limits.MAX_ID:
        raise InvalidRequest(f"{what} id {number} is larger than {limits.MAX_ID}")
    return number
