"""Names, quantities and selectors: what is read, what is refused, what round-trips."""

from __future__ import annotations

import contextlib
import datetime
import posixpath
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.domain.errors import Invalid
from cloudless.domain.names import (
    check_absolute_path,
    check_env_name,
    check_label_key,
    check_label_value,
    check_name,
)
from cloudless.domain.quantity import (
    MAX_DURATION,
    format_bytes,
    format_cpu,
    format_duration,
    parse_bytes,
    parse_cpu,
    parse_duration,
)
from cloudless.domain.selector import MAX_SELECTOR_LENGTH, parse_selector, selector_of

BAD_NAMES = [
    "",
    "-a",
    "a-",
    "A",
    "a.b",
    "a_b",
    "a b",
    "a/b",
    "../x",
    "/etc",
    "a\0",
    "a\n",
    "\u0430",
    "a\u00e4",
    "%2e",
    "a" * 64,
    "a" * 300,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"must|long"):
        check_name(name)


@given(st.text(max_size=70))
def test_an_accepted_name_stays_in_its_folder_and_its_key_range(name: str) -> None:
    try:
        check_name(name)
    except ValueError:
        return
    assert posixpath.normpath(f"/root/{name}") == f"/root/{name}"
    assert name.isascii()
    assert name.islower() or name.replace("-", "").isdigit()
    assert len(name) <= 63


@pytest.mark.parametrize("key", ["app", "example.com/tier", "a" * 63, "x.y/A_b.c-d"])
def test_label_keys(key: str) -> None:
    assert check_label_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a" * 64, "-a", "Ex.com/a", "a/b/c", "a b", "a\n", "<script>"]
)
def test_bad_label_keys(key: str) -> None:
    with pytest.raises(ValueError, match="label key"):
        check_label_key(key)


@pytest.mark.parametrize("value", ["-a", "a-", "a" * 64, "a b", "=cmd()", "a\0"])
def test_bad_label_values(value: str) -> None:
    with pytest.raises(ValueError, match="at most 63"):
        check_label_value(value)
    assert check_label_value("") == ""


@pytest.mark.parametrize("name", ["", "1A", "A=B", "A\0", "A B", "a" * 257])
def test_bad_env_names(name: str) -> None:
    with pytest.raises(ValueError, match="letters"):
        check_env_name(name)


@pytest.mark.parametrize("path", ["", "a", "./a", "/a/../b", "/..", "/a\0", "/" + "a" * 4096])
def test_bad_paths(path: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check_absolute_path(path)


@given(st.text(st.sampled_from("/.ab"), max_size=12))
def test_paths_are_normal(path: str) -> None:
    try:
        found = check_absolute_path(path)
    except ValueError:
        return
    assert found == posixpath.normpath(found)
    assert found.startswith("/")
    assert not found.startswith("//")


@given(st.integers(0, int(MAX_DURATION.total_seconds() * 1_000_000)))
def test_durations_round_trip(micros: int) -> None:
    value = datetime.timedelta(microseconds=micros)
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "1 s",
        "-1s",
        "1y",
        "s",
        "1s2",
        "1e3s",
        "nan",
        "367d",
        "9" * 30 + "s",
        "1.2.3s",
        "\u0661s",
    ],
)
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|days"):
        parse_duration(text)


@given(st.integers(0, 2**53))
def test_sizes_round_trip(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == size


@given(st.integers(0, 10**9))
def test_cpu_round_trips(millicores: int) -> None:
    assert parse_cpu(format_cpu(millicores)) == millicores


@pytest.mark.parametrize("text", ["", "-1", "1.5.2", "1Xi", "Mi", "0x10", "1e9", "9" * 40, "\u0661"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "-1", "1.0001", "m", "1.5m", "two"])
def test_bad_cpu(text: str) -> None:
    with pytest.raises(ValueError, match="amount of CPU"):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (x, y)", {"a": "y"}, True),
        ("a in (x,y)", {}, False),
        ("a notin (x,y)", {"a": "z"}, True),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("!a", {}, True),
        ("a=b,c in (d,e),!f", {"a": "b", "c": "e"}, True),
        ("a=b,c in (d,e),!f", {"a": "b", "c": "e", "f": "g"}, False),
        ("a=", {"a": ""}, True),
        ("example.com/tier=web", {"example.com/tier": "web"}, True),
    ],
)
def test_selectors(selector: str, labels: dict[str, str], matches: bool) -> None:
    assert parse_selector(selector).matches(labels) is matches


@pytest.mark.parametrize(
    "text",
    ["=", "a=b,", ",", "a in x", "a in (x", "a b", "!", "a>1", "a=b=c", "a" * (MAX_SELECTOR_LENGTH + 1)],
)
def test_bad_selectors(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        selector_of(text, "request.label_selector")
    assert caught.value.violations[0].path == "request.label_selector"


@given(st.text(max_size=60))
def test_no_selector_text_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_selector(text).matches({"a": "b"}) in (True, False)


@pytest.mark.parametrize("piece", [",", "(", ")", "a,", "(,", "(a)", "((", "a in (x),", " ", "!", "a=b,"])
def test_hostile_selectors_take_no_time(piece: str) -> None:
    """Linear: what took 30 ms each would be seconds in a specification full of them."""
    text = (piece * MAX_SELECTOR_LENGTH)[:MAX_SELECTOR_LENGTH]
    begun = time.process_time()
    for _ in range(50):
        with contextlib.suppress(ValueError):
            parse_selector(text)
    assert time.process_time() - begun < 1  # 1.6 s and more when each comma looks to the end
