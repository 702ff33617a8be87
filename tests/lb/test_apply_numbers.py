"""Numbers and places that are used again: counts and flows of who had them before."""

from dataclasses import replace
from ipaddress import ip_address

from apply_bench import Bench, remember, remembered
from service_samples import addresses, named, service
from watched import WatchedTable

from lb.dataplane.twin import TwinDataPlane

EIGHT = addresses(8)
WEB = service("web", *EIGHT[:5])
DNS = service("dns", "10.0.0.1", "fd00::1", port="any", protocol="udp", vip="fc00:1::1")


def count(bench: Bench, name: str, address: str, packets: int) -> None:
    """Packets that a backend has had."""
    plan = bench.plans.by_name[name]
    bench.twin.tables.backend_counters.add(
        plan.start + plan.at[ip_address(address).packed], packets, packets * 100
    )


def counted(bench: Bench, name: str) -> tuple[dict[str, int], int]:
    """Packets of each backend of a service, and those counted for the service beside them."""
    plan, tables = bench.plans.by_name[name], bench.twin.tables
    places = {str(b.address): plan.start + plan.at[b.address.packed] for b in plan.service.backends}
    rows = {
        address: int(tables.backend_counters.read_some([at])["packets"][0]) for address, at in places.items()
    }
    return rows, int(tables.service_counters.read_some([plan.number])["packets"][0])


def test_a_block_that_moves_takes_its_counts_along() -> None:
    """Backends keep what they have counted, and the service's sum stays."""
    bench = Bench()
    bench.put(named(WEB))
    count(bench, "web", EIGHT[0], 5)
    count(bench, "web", EIGHT[4], 7)

    bench.put(named(service("web", *addresses(40))))

    rows, rest = counted(bench, "web")
    assert (rows[EIGHT[0]], rows[EIGHT[4]], sum(rows.values()) + rest) == (5, 7, 12)


def test_what_is_counted_while_a_block_moves_is_not_lost() -> None:
    """Packets that the old place counts after its counts were copied go to the service."""
    twin = TwinDataPlane()
    late: list[int] = []

    def look() -> None:
        if late:
            twin.tables.backend_counters.add(late.pop(), 4, 400)

    bench = Bench(twin, replace(twin.tables, services4=WatchedTable(twin.tables.services4, look)))
    bench.put(named(WEB))
    count(bench, "web", EIGHT[0], 5)
    late.append(bench.plans.by_name["web"].start)

    bench.put(named(service("web", *addresses(40))))

    rows, rest = counted(bench, "web")
    assert (sum(rows.values()), rest) == (5, 4)


def test_a_place_that_is_used_again_starts_at_zero_and_the_service_keeps_the_sum() -> None:
    """What a backend that is gone had counted goes to its service when another takes the place."""
    bench = Bench()
    bench.put(named(service("web", *EIGHT[:7])))
    count(bench, "web", EIGHT[0], 5)
    bench.put(named(service("web", *EIGHT[1:7])))
    bench.put(named(service("web", *EIGHT[1:7], "10.9.0.1", "10.9.0.2")))

    rows, rest = counted(bench, "web")
    assert (rows["10.9.0.1"], rows["10.9.0.2"], rest) == (0, 0, 5)


def test_a_number_that_is_used_again_starts_at_zero() -> None:
    """A new service finds no counts of one that is gone."""
    bench = Bench()
    bench.put(named(WEB))
    count(bench, "web", EIGHT[0], 5)
    bench.twin.tables.service_counters.add(0, 3, 300)
    bench.put({})
    bench.put(named(service("new", *EIGHT[:5])))

    assert bench.plans.by_name["new"].number == 0
    assert counted(bench, "new") == (dict.fromkeys(EIGHT[:5], 0), 0)


def test_flows_of_a_place_go_when_another_takes_it() -> None:
    """And no others: neither of that service, nor of another at an equal place."""
    bench = Bench()
    bench.put(named(service("web", *EIGHT[:7]), service("dns", *EIGHT[:7], port=53)))
    web, dns = (bench.plans.by_name[name] for name in ("web", "dns"))
    remember(bench, 10, web.number, 0)
    remember(bench, 11, web.number, 1)
    remember(bench, 12, dns.number, 0)
    bench.put(named(service("web", *EIGHT[1:7]), dns.service))
    assert remembered(bench) == [10, 11, 12]

    bench.put(named(service("web", *EIGHT[1:7], "10.9.0.1", "10.9.0.2"), dns.service))

    assert remembered(bench) == [11, 12]


def test_flows_of_a_number_go_when_another_service_takes_it() -> None:
    """Flows of a removed service are nothing to the next one with its number; those of others stay."""
    bench = Bench()
    bench.put(named(WEB, DNS))
    remember(bench, 20, bench.plans.by_name["web"].number, 3)
    remember(bench, 21, bench.plans.by_name["dns"].number, 1)
    bench.put(named(DNS))
    bench.put(named(DNS, service("new", *EIGHT)))

    assert remembered(bench) == [21]
