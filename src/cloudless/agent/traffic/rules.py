"""The rules of published ports as text, and the text read back. Pure.

A chain per endpoint picks a backend for each new connection: in turn, or by chance where
weights make too many turns. Verdict maps lead to the chains. A switch changes one chain.
The way back, masquerading and the guard around loopback are the network's own table:
without replicas nobody needs them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from cloudless.agent.network.names import Names
from cloudless.agent.traffic.limits import MAX_TURNS
from cloudless.agent.traffic.port import ANY_ADDRESS, Backend, Endpoint, Services

_CHAIN = re.compile(r"^\s*chain ((?:tcp|udp)_(?:any|[0-9_]+)_[0-9]+) \{")
_PLACE = re.compile(r"([0-9]+)(?:-([0-9]+))? : ([0-9.]+) \. ([0-9]+)")


def table_of(names: Names) -> str:
    """The name of the node's table of published ports.

    >>> table_of(Names("00c0ffee"))
    'cloudless_00c0ffee_traffic'
    """
    return f"{names.table}_traffic"


def whole_table(names: Names, services: Services) -> str:
    """Commands that replace the table, whatever is there, in one transaction."""
    table = table_of(names)
    return f"""\
{no_table(names)}
table ip {table} {{
  map tcp_ports {{ type ipv4_addr . inet_service : verdict; }}
  map udp_ports {{ type ipv4_addr . inet_service : verdict; }}
  map tcp_any {{ type inet_service : verdict; }}
  map udp_any {{ type inet_service : verdict; }}
  chain published {{
    ip daddr . tcp dport vmap @tcp_ports
    ip daddr . udp dport vmap @udp_ports
    tcp dport vmap @tcp_any
    udp dport vmap @udp_any
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat;
    fib daddr type local jump published
  }}
  chain local {{
    type nat hook output priority -100;
    fib daddr type local jump published
  }}
}}
{change(names, {}, services)}"""


def no_table(names: Names) -> str:
    """Commands that remove the table, if there is one."""
    return f"add table ip {table_of(names)}\ndelete table ip {table_of(names)}"


def change(names: Names, before: Services, after: Services) -> str:
    """Commands that lead from one state to another; refused as a whole when ``before`` is not true.

    >>> print(change(Names("00c0ffee"), {}, {Endpoint("0.0.0.0", 80): (Backend("10.213.0.2", 8080),)}))
    add chain ip cloudless_00c0ffee_traffic tcp_any_80
    add rule ip cloudless_00c0ffee_traffic tcp_any_80 meta l4proto tcp dnat ip addr . port to \
numgen inc mod 1 map { 0 : 10.213.0.2 . 8080 }
    add rule ip cloudless_00c0ffee_traffic tcp_any_80 meta l4proto tcp dnat ip to 10.213.0.2:8080
    add element ip cloudless_00c0ffee_traffic tcp_any { 80 : jump tcp_any_80 }
    """
    return "\n".join(_commands(table_of(names), before, after))


def _commands(table: str, before: Services, after: Services) -> Iterator[str]:
    for endpoint in before.keys() - after.keys():
        yield f"delete element ip {table} {_map_of(endpoint)} {{ {_key_of(endpoint)} }}"
        yield f"delete chain ip {table} {chain_of(endpoint)}"
    for endpoint, backends in after.items():
        chain = chain_of(endpoint)
        if endpoint not in before:
            yield f"add chain ip {table} {chain}"
        elif before[endpoint] == backends:
            continue
        else:
            yield f"flush chain ip {table} {chain}"
        yield f"add rule ip {table} {chain} {_rule(endpoint, backends)}"
        if backends:
            yield f"add rule ip {table} {chain} {_spare_rule(endpoint, backends)}"
        if endpoint not in before:
            yield f"add element ip {table} {_map_of(endpoint)} {{ {_key_of(endpoint)} : jump {chain} }}"


def chain_of(endpoint: Endpoint) -> str:
    """The name of an endpoint's chain.

    >>> chain_of(Endpoint("127.0.0.1", 53, "udp"))
    'udp_127_0_0_1_53'
    """
    address = "any" if endpoint.address == ANY_ADDRESS else endpoint.address.replace(".", "_")
    return f"{endpoint.protocol}_{address}_{endpoint.port}"


def _rule(endpoint: Endpoint, backends: tuple[Backend, ...]) -> str:
    if not backends:
        # Else a process of the host that happens to listen there would get the connection.
        answer = "reject with tcp reset" if endpoint.protocol == "tcp" else "reject"
        return f"meta l4proto {endpoint.protocol} {answer}"
    total = sum(one.weight for one in backends)
    alike = total == len(backends)
    if alike or total <= MAX_TURNS:
        turns = slots(backends)
        places = (f"{number} : {one.address} . {one.port}" for number, one in enumerate(turns))
        pick = f"inc mod {total}"
    else:
        places = (f"{span} : {one.address} . {one.port}" for span, one in spans(backends))
        pick = f"random mod {total}"
    return (
        f"meta l4proto {endpoint.protocol} dnat ip addr . port to numgen {pick} map {{ {', '.join(places)} }}"
    )


def _spare_rule(endpoint: Endpoint, backends: tuple[Backend, ...]) -> str:
    """For a packet that is on its way through the chain in the instant of a switch.

    It goes by the rules that it began with, but finds their map as it is now, which is empty:
    without this the connection would be led to the host itself, and refused.
    """
    first = min(backends)
    return f"meta l4proto {endpoint.protocol} dnat ip to {first.address}:{first.port}"


def slots(backends: Iterable[Backend]) -> list[Backend]:
    """Whose turn it is, connection by connection: each as often as its weight says, spread evenly.

    >>> a, b = Backend("10.0.0.1", 80, weight=3), Backend("10.0.0.2", 80, weight=1)
    >>> [one.address for one in slots([a, b])]
    ['10.0.0.1', '10.0.0.1', '10.0.0.2', '10.0.0.1']
    """
    given = sorted(backends)
    turns = [
        ((turn + 0.5) / one.weight, index) for index, one in enumerate(given) for turn in range(one.weight)
    ]
    return [given[index] for _, index in sorted(turns)]


def spans(backends: Iterable[Backend]) -> Iterator[tuple[str, Backend]]:
    """Which numbers lead to which backend: as many as its weight says.

    >>> a, b = Backend("10.0.0.1", 80, weight=3), Backend("10.0.0.2", 80, weight=1)
    >>> [span for span, _ in spans([a, b])]
    ['0-2', '3']
    """
    first = 0
    for one in sorted(backends):
        last = first + one.weight - 1
        yield f"{first}-{last}" if last > first else f"{first}", one
        first = last + 1


def parse(listing: str) -> dict[Endpoint, tuple[Backend, ...]]:
    """What a listed table puts in force.

    >>> found = parse("chain tcp_any_80 {\\n dnat ip to numgen inc mod 1 map { 0 : 10.0.0.1 . 80 }\\n }")
    >>> found == {Endpoint("0.0.0.0", 80): (Backend("10.0.0.1", 80),)}
    True
    """
    found: dict[Endpoint, tuple[Backend, ...]] = {}
    endpoint: Endpoint | None = None
    for line in listing.splitlines():
        opening = _CHAIN.match(line)
        if opening is not None:
            endpoint = _endpoint_of(opening[1])
            found[endpoint] = ()
        elif line.strip() == "}":
            endpoint = None
        elif endpoint is not None:
            counts: Counter[tuple[str, int]] = Counter()
            for first, last, address, port in _PLACE.findall(line):
                counts[address, int(port)] += int(last or first) - int(first) + 1
            backends = (Backend(address, port, count) for (address, port), count in counts.items())
            found[endpoint] = (*found[endpoint], *sorted(backends))
    return dict(sorted(found.items()))


def _endpoint_of(chain: str) -> Endpoint:
    protocol, _, rest = chain.partition("_")
    address, _, port = rest.rpartition("_")
    return Endpoint(
        ANY_ADDRESS if address == "any" else address.replace("_", "."),
        int(port),
        "udp" if protocol == "udp" else "tcp",
    )


def _map_of(endpoint: Endpoint) -> str:
    return f"{endpoint.protocol}_{'any' if endpoint.address == ANY_ADDRESS else 'ports'}"


def _key_of(endpoint: Endpoint) -> str:
    number = str(endpoint.port)
    return number if endpoint.address == ANY_ADDRESS else f"{endpoint.address} . {number}"
