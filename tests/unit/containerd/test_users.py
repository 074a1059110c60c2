from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.containerd import limits
from cloudless.containerd.errors import InvalidRequest
from cloudless.containerd.plan import User
from cloudless.containerd.users import resolve_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
web:x:1001:1002:web:/home/web:/bin/sh
1500:x:0:0:a number for a name:/n:/bin/sh
odd
negative:x:-5:0::/:
huge:x:99999999999:0::/:
"""
GROUP = b"""root:x:0:root
web:x:1002:web
log:x:1005:web,root
1600:x:0:
broken:x:no:web
"""


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", User(0, 0, (1005,), "/root")),
        ("root", User(0, 0, (1005,), "/root")),
        ("web", User(1001, 1002, (1005,), "/home/web")),
        ("1001", User(1001, 1002, (1005,), "/home/web")),
        ("1500", User(1500, 0, (), "/")),  # a number is never a name: run_as_user must mean itself
        ("web:1600", User(1001, 1600, (), "/home/web")),
        ("4242", User(4242, 0, (), "/")),
        ("web:0", User(1001, 0, (), "/home/web")),
        ("web:log", User(1001, 1005, (), "/home/web")),
        ("7:8", User(7, 8, (), "/")),
        (":log", User(0, 1005, (), "/root")),
        ("web:", User(1001, 1002, (1005,), "/home/web")),
    ],
)
def test_names_and_numbers(user: str, found: User) -> None:
    assert resolve_user(user, PASSWD, GROUP) == found


@pytest.mark.parametrize(
    "user", ["nobody", "web:nobody", "-1", "1.5", str(2**31), "9" * 30, "huge", "negative", "٣"]
)
def test_what_cannot_be_resolved_is_refused(user: str) -> None:
    with pytest.raises(InvalidRequest):
        resolve_user(user, PASSWD, GROUP)


def test_no_files_at_all() -> None:
    assert resolve_user("", b"", b"") == User(0, 0, (), "/root")


def test_hostile_files_are_bounded() -> None:
    group = b"\n".join(b"g%d:x:%d:web" % (n, n + 2000) for n in range(5000))
    assert len(resolve_user("web", PASSWD, group).groups) == limits.MAX_SUPPLEMENTAL_GROUPS
    long_line = b"web:x:5:5:" + b"x" * limits.MAX_ACCOUNT_LINE_BYTES + b":/:\n"
    assert resolve_user("web", long_line + PASSWD, b"").uid == 1001


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_any_input_gives_a_user_or_a_refusal(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve_user(user, passwd, group)
    except InvalidRequest:
        return
    assert 0 <= found.uid <= limits.MAX_ID
    assert all(0 <= gid <= limits.MAX_ID for gid in (found.gid, *found.groups))
