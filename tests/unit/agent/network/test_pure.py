"""Addresses, names, rules and files: the parts of the network that need no kernel."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudless.agent.network import files, rules
from cloudless.agent.network.addresses import choose_range, next_address, parse_routes, range_of
from cloudless.agent.network.hostports import holder_of, listening_inodes
from cloudless.agent.network.leases import Lease, Leases
from cloudless.agent.network.limits import DEFAULT_RANGES, FALLBACK_NAMESERVERS
from cloudless.agent.network.names import Names
from cloudless.agent.network.port import HostPort, NetworkRangeTaken, NetworkUnavailable, check_attachment
from cloudless.domain.errors import Invalid

RANGE = ipaddress.IPv4Network("10.0.0.0/28")


@given(st.sets(st.integers(int(RANGE[2]), int(RANGE[-2]))), st.integers(int(RANGE[0]), int(RANGE[-1])))
def test_an_address_is_free_and_inside(taken: set[int], last: int) -> None:
    if len(taken) == 13:
        with pytest.raises(NetworkUnavailable, match="all 13 addresses"):
            next_address(RANGE, taken, last)
        return
    address = next_address(RANGE, taken, last)
    assert address not in taken
    assert int(RANGE[1]) < address < int(RANGE[-1])


def test_every_address_is_given_before_one_returns() -> None:
    given_out: list[int] = []
    last = 0
    for _ in range(13):
        last = next_address(RANGE, (), last)
        given_out.append(last)
    assert len(set(given_out)) == 13
    assert next_address(RANGE, (), last) == given_out[0]


@pytest.mark.parametrize(
    "bad", ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/8", "10.0.0.0/30", "fd00::/64", "x/16"]
)
def test_odd_ranges_are_refused(bad: str) -> None:
    with pytest.raises(Invalid):
        range_of(bad)


def test_a_range_that_overlaps_a_route_names_it() -> None:
    routes = [(ipaddress.IPv4Network("0.0.0.0/0"), "eth0"), (ipaddress.IPv4Network("10.8.0.0/16"), "tun0")]
    wanted = ipaddress.IPv4Network("10.8.4.0/24")
    with pytest.raises(NetworkRangeTaken, match=r"10\.8\.0\.0/16 of tun0"):
        choose_range(wanted, routes, "own")
    assert choose_range(wanted, routes, "tun0") == wanted
    assert choose_range(None, routes, "own") == DEFAULT_RANGES[0]


def test_when_all_ranges_are_taken_it_says_so() -> None:
    with pytest.raises(NetworkRangeTaken, match=r"10\.213\.0\.0/16 to 10\.232.* of vpn"):
        choose_range(None, [(ipaddress.IPv4Network("10.0.0.0/8"), "vpn")], "own")


def test_routes_of_this_machine_can_be_read() -> None:
    text = Path("/proc/net/route").read_text()
    assert len(parse_routes(text)) == len(text.splitlines()) - 1


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_have_bounds(port: int) -> None:
    with pytest.raises(Invalid):
        HostPort(port, 80)
    with pytest.raises(Invalid):
        HostPort(80, port)


@pytest.mark.parametrize("address", ["", "::1", "host", "1.2.3", "127.0.0.1; drop"])
def test_addresses_of_ports_are_ipv4(address: str) -> None:
    with pytest.raises(Invalid):
        HostPort(80, 80, host_ip=address)


@pytest.mark.parametrize("hostname", ["", "-a", "a_b", "a b", "x" * 65, "a\nb"])
def test_hostnames_are_checked(hostname: str) -> None:
    with pytest.raises(Invalid, match="host name"):
        check_attachment("id", hostname, ())


def test_interfaces_fit_and_lead_back() -> None:
    names = Names.of("/var/lib/cloudless")
    other = Names.of("/var/lib/other")
    assert all(len(name) <= 15 for name in (names.bridge, names.veth(0xFFFFF)))
    assert names.offset_of(names.veth(0xFFFFF)) == 0xFFFFF
    assert names.offset_of(other.veth(1)) is None
    assert names.offset_of("eth0") is None
    assert names.offset_of(names.veth(1)[:-1] + "z") is None


def test_rules_lead_ports_to_replicas() -> None:
    text = rules.whole_table(
        Names("00c0ffee"),
        RANGE,
        [(HostPort(80, 8080), "10.0.0.2"), (HostPort(53, 53, "udp", "192.0.2.1"), "10.0.0.3")],
    )
    assert "tcp_any { 80 : 10.0.0.2 . 8080 }" in text
    assert "udp_ports { 192.0.2.1 . 53 : 10.0.0.3 . 53 }" in text


def test_resolvers_that_a_replica_cannot_reach_are_left_out() -> None:
    host = "# made by hand\nnameserver ::1\nnameserver fd00::1\nnameserver 127.0.0.53\noptions ndots:2\n"
    fallback = [f"nameserver {server}" for server in FALLBACK_NAMESERVERS]
    assert files.resolv_conf(host).splitlines() == ["options ndots:2", *fallback]
    assert "nameserver 127.0.0.53" in files.resolv_conf(host, host_network=True)
    many = "".join(f"nameserver 10.0.0.{number}\n" for number in range(1, 9))
    assert files.resolv_conf(many).count("nameserver") == 3


def test_name_files_are_written_in_place(tmp_path: Path) -> None:
    made = files.write(tmp_path / "names", hostname="web-0", address="10.0.0.2")
    inode = made.hosts.stat().st_ino
    assert made.hostname.read_text() == "web-0\n"
    assert "10.0.0.2\tweb-0\n" in made.hosts.read_text()
    assert "nameserver" in made.resolv_conf.read_text()
    assert files.write(tmp_path / "names", hostname="web-0", address="10.0.0.3") == made
    assert made.hosts.stat().st_ino == inode
    assert made.hosts.stat().st_mode & 0o777 == 0o644


def test_leases_survive(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.open()
    lease = Lease("one", "web", "10.0.0.2", (HostPort(80, 80),))
    leases.put(lease)
    leases.put(Lease("two", "web", None, ()))
    leases.save_range(RANGE)
    leases.drop("two")
    leases.drop("two")
    again = Leases(tmp_path)
    again.open()
    assert again.all() == (lease,)
    assert again.saved_range() == RANGE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"id": "one"}',
        '{"id": "other", "hostname": "w", "address": "10.0.0.2", "host_ports": []}',
        '{"id": "one", "hostname": "w", "address": "nowhere", "host_ports": []}',
        '{"id": "one", "hostname": "w", "address": "10.0.0.2", "host_ports": [{"host_port": 0}]}',
        '{"id": "one", "hostname": "w", "address": "10.0.0.2", "host_ports": [], "more": 1}',
    ],
)
def test_a_damaged_lease_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.lease").write_text(text)
    (tmp_path / "two.lease.new").write_text("half")
    leases = Leases(tmp_path)
    leases.open()
    assert leases.all() == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.bad"]


def test_who_listens_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = int(listener.getsockname()[1])
        holder = holder_of(HostPort(number, 80, host_ip="127.0.0.1"))
        assert holder is not None
        assert "pid" in holder
        assert holder_of(HostPort(number, 80)) is not None
        assert holder_of(HostPort(number, 80, "udp")) is None
    assert holder_of(HostPort(number, 80)) is None


def test_a_listener_on_all_ipv6_addresses_holds_the_port_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        assert holder_of(HostPort(int(listener.getsockname()[1]), 80)) is not None


def test_outgoing_connections_hold_no_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        assert holder_of(HostPort(int(client.getsockname()[1]), 80, host_ip="127.0.0.1")) is None


def test_an_address_of_nobody_is_free() -> None:
    assert holder_of(HostPort(80, 80, host_ip="198.51.100.77")) is None


def test_only_listeners_count() -> None:
    head = "  sl  local_address rem_address   st\n"
    established = "0: 0100007F:1F90 0100007F:9999 01 0:0 00:0 0 0 0 1 1\n"
    elsewhere = "1: 0200007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 2 1\n"
    port = HostPort(8080, 80, host_ip="127.0.0.1")
    assert listening_inodes(port, head + established + elsewhere) == frozenset()
    assert listening_inodes(HostPort(8080, 80), head + established + elsewhere) == {"2"}
