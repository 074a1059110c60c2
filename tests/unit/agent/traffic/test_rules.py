"""The text of the rules: one transaction from any state to any other, and turns by weight."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.agent.network.names import Names
from cloudless.agent.traffic import connections, rules
from cloudless.agent.traffic.limits import MAX_BACKENDS, MAX_WEIGHT
from cloudless.agent.traffic.port import Backend, Endpoint, check_services
from cloudless.domain.errors import Invalid

NAMES = Names("00c0ffee")
WEB, DNS = Endpoint("127.0.0.1", 8088), Endpoint("0.0.0.0", 53, "udp")
A, B = Backend("10.213.0.2", 8080), Backend("10.213.0.3", 8080)


def test_nothing_to_change_is_no_command() -> None:
    assert rules.change(NAMES, {WEB: (A,)}, {WEB: (A,)}) == ""


def test_a_switch_touches_one_chain_only() -> None:
    text = rules.change(NAMES, {WEB: (A,), DNS: (A,)}, {WEB: (A, B), DNS: (A,)})
    assert text.splitlines() == [
        "flush chain ip cloudless_00c0ffee_traffic tcp_127_0_0_1_8088",
        "add rule ip cloudless_00c0ffee_traffic tcp_127_0_0_1_8088 meta l4proto tcp dnat ip addr . port to "
        "numgen inc mod 2 map { 0 : 10.213.0.2 . 8080, 1 : 10.213.0.3 . 8080 }",
        "add rule ip cloudless_00c0ffee_traffic tcp_127_0_0_1_8088 meta l4proto tcp dnat ip to "
        "10.213.0.2:8080",
    ]


def test_a_packet_in_the_instant_of_a_switch_has_a_rule_that_needs_no_map() -> None:
    """Its rule is the old one, but the map of that is gone: the next rule of the chain takes it."""
    added = rules.change(NAMES, {WEB: (A,)}, {WEB: (B, A)}).splitlines()[1:]
    assert [" map " in line for line in added] == [True, False]
    listing = (
        "chain tcp_127_0_0_1_8088 {\n" + "\n".join(line.partition(" meta ")[2] for line in added) + "\n}"
    )
    assert rules.parse(listing) == {WEB: (A, B)}, "it is no backend of its own"
    assert " map " not in rules.change(NAMES, {WEB: (A,)}, {WEB: ()})


def test_without_backends_connections_are_refused() -> None:
    assert "meta l4proto tcp reject with tcp reset" in rules.change(NAMES, {WEB: (A,)}, {WEB: ()})
    assert rules.change(NAMES, {DNS: (A,)}, {DNS: ()}).endswith("meta l4proto udp reject")


def test_what_is_gone_leaves_no_chain_and_no_element() -> None:
    assert rules.change(NAMES, {DNS: (A,)}, {}).splitlines() == [
        "delete element ip cloudless_00c0ffee_traffic udp_any { 53 }",
        "delete chain ip cloudless_00c0ffee_traffic udp_any_53",
    ]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_turns_are_shared_by_weight_and_spread(weights: list[int]) -> None:
    backends = [Backend(f"10.0.0.{number}", 80, weight) for number, weight in enumerate(weights, 1)]
    turns = rules.slots(backends)
    counts = Counter(turns)
    for one, other in pairwise(backends):
        assert counts[one] * other.weight == counts[other] * one.weight
    for backend in backends:
        places = [place for place, turn in enumerate(turns) if turn == backend]
        longest = max((after - before for before, after in pairwise(places)), default=0)
        assert longest <= 2 * (len(turns) / len(places)) + len(backends)


def test_many_turns_become_a_line_for_each_backend() -> None:
    heavy, light = Backend("10.213.0.2", 80, 999_999), Backend("10.213.0.3", 80, 1)
    (rule,) = [
        line for line in rules.change(NAMES, {}, {WEB: (heavy, light)}).splitlines() if " map " in line
    ]
    assert rule.endswith(
        "numgen random mod 1000000 map { 0-999998 : 10.213.0.2 . 80, 999999 : 10.213.0.3 . 80 }"
    )


@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=30))
def test_every_number_leads_to_one_backend(weights: list[int]) -> None:
    backends = [Backend(f"10.0.0.{number}", 80, weight) for number, weight in enumerate(weights, 1)]
    following = 0
    for span, backend in rules.spans(backends):
        first, _, last = span.partition("-")
        assert int(first) == following
        following = int(last or first) + 1
        assert following - int(first) == backend.weight
    assert following == sum(weights)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (lambda: Endpoint("::1", 80), "address"),
        (lambda: Endpoint("127.0.0.1; flush ruleset", 80), "address"),
        (lambda: Endpoint("127.0.0.1", 0), "port"),
        (lambda: Endpoint("127.0.0.1", 80, "sctp"), "protocol"),  # type: ignore[arg-type]
        (lambda: Backend("10.0.0.1", 65536), "port"),
        (lambda: Backend("10.0.0.1", 80, 0), "weight"),
        (lambda: check_services({Endpoint("0.0.0.0", 80): (), Endpoint("127.0.0.1", 80): ()}), "endpoints"),
        (lambda: check_services({WEB: (A,) * (MAX_BACKENDS + 1)}), "backends"),
        (lambda: check_services({WEB: (Backend("10.0.0.1", 80, MAX_WEIGHT),) * 3}), "weight"),
    ],
)
def test_bad_input_is_refused(make: object, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        make()  # type: ignore[operator]
    assert caught.value.violations[0].path == path


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("01", 1),
        ("03", 1),
        ("04", 1),
        ("08", 1),
        ("09", 1),
        ("0B", 1),
        ("02", 0),
        ("05", 0),
        ("06", 0),
        ("0A", 0),
    ],
)
def test_which_connections_are_unfinished(state: str, counts: int) -> None:
    table = f"header\n 0: 0200D50A:1F90 0100D50A:D431 {state} 0:0 00:0 0 0 0 2 1\n"
    assert connections.unfinished(table, frozenset({8080})) == counts
    assert connections.unfinished(table, frozenset({80, 0xD431})) == 0
