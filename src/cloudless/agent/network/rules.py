"""The node's nftables rules as text. Pure; every value that gets in has a checked type.

One table of our own holds everything: a verdict map per protocol leads host ports to
replicas, a few fixed rules let packets come back. Changing a port changes one element.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cloudless.agent.network.names import Names
from cloudless.agent.network.port import ANY_ADDRESS, HostPort

#: A host port and the address of the replica that it leads to.
Forward = tuple[HostPort, str]


def whole_table(names: Names, network: ipaddress.IPv4Network, forwards: Iterable[Forward]) -> str:
    """Commands that replace the table, whatever is there, in one transaction."""
    table, bridge = names.table, names.bridge
    return f"""\
add table ip {table}
delete table ip {table}
table ip {table} {{
  map tcp_ports {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  map udp_ports {{ type ipv4_addr . inet_service : ipv4_addr . inet_service; }}
  map tcp_any {{ type inet_service : ipv4_addr . inet_service; }}
  map udp_any {{ type inet_service : ipv4_addr . inet_service; }}
  chain guard {{
    comment "nobody on the wire speaks to our loopback, though the bridge routes it"
    type filter hook prerouting priority raw;
    iifname != "lo" ip daddr 127.0.0.0/8 drop
  }}
  chain host_ports {{
    meta l4proto tcp dnat ip addr . port to ip daddr . tcp dport map @tcp_ports
    meta l4proto udp dnat ip addr . port to ip daddr . udp dport map @udp_ports
    meta l4proto tcp dnat ip addr . port to tcp dport map @tcp_any
    meta l4proto udp dnat ip addr . port to udp dport map @udp_any
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat;
    fib daddr type local jump host_ports
  }}
  chain local {{
    type nat hook output priority -100;
    fib daddr type local jump host_ports
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    oifname "{bridge}" ip saddr 127.0.0.0/8 masquerade
    oifname "{bridge}" ip saddr {network} ct status dnat masquerade
    oifname != "{bridge}" ip saddr {network} ip daddr != {network} masquerade
  }}
  chain crossing {{
    comment "from outside only published ports can be reached"
    type filter hook forward priority filter;
    iifname != "{bridge}" oifname "{bridge}" ct state new ct status ! dnat drop
  }}
}}
{add_forwards(names, forwards)}"""


def add_forwards(names: Names, forwards: Iterable[Forward]) -> str:
    """Commands that add elements; refused as a whole when one is there with another target.

    >>> print(add_forwards(Names("00c0ffee"), [(HostPort(8080, 80), "10.213.0.2")]))
    add element ip cloudless_00c0ffee tcp_any { 8080 : 10.213.0.2 . 80 }
    """
    return "\n".join(
        f"add element ip {names.table} {_map_of(port)} "
        f"{{ {_key_of(port)} : {_address(to)} . {port.container_port} }}"
        for port, to in forwards
    )


def delete_forwards(names: Names, ports: Iterable[HostPort]) -> str:
    """Commands that remove elements; refused as a whole when one is not there.

    >>> print(delete_forwards(Names("00c0ffee"), [HostPort(53, 53, "udp", "127.0.0.1")]))
    delete element ip cloudless_00c0ffee udp_ports { 127.0.0.1 . 53 }
    """
    return "\n".join(
        f"delete element ip {names.table} {_map_of(port)} {{ {_key_of(port)} }}" for port in ports
    )


def no_table(names: Names) -> str:
    """Commands that remove the table, if there is one."""
    return f"add table ip {names.table}\ndelete table ip {names.table}"


def _map_of(port: HostPort) -> str:
    return f"{port.protocol}_any" if port.host_ip == ANY_ADDRESS else f"{port.protocol}_ports"


def _key_of(port: HostPort) -> str:
    if port.host_ip == ANY_ADDRESS:
        return str(port.host_port)
    return f"{_address(port.host_ip)} . {port.host_port}"


def _address(text: str) -> str:
    return str(ipaddress.IPv4Address(text))
