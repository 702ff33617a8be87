"""The path to each backend, and what it does with packets: one finding per fault, whatever services it affects."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from lb.doctor.facts import Answer, BackendFacts
from lb.doctor.finding import Finding, fail, ok, warn

FULL_PACKET = 1500
"""The longest packet that clients on the Internet send."""
UNPROVEN_TO_TELL = 3
"""This many flows without an answer are no accident."""


def examine(backends: Sequence[BackendFacts]) -> Iterator[Finding]:
    """Findings of all backends that may get packets."""
    active = [one for one in backends if one.active]
    yield from headroom(active)
    for address, some in _groups(active, lambda one: one.address):
        first = next(iter(way(some)), None)
        if first is not None:
            yield first
            continue
        found = list(answers(some))
        yield from found or [ok("backend", address, f"{address} works as it should{_asked(some)}")]
    yield from return_path(active)


def _asked(some: Sequence[BackendFacts]) -> str:
    return "" if any(one.answers.vip for one in some) else ", as far as tested"


def way(some: Sequence[BackendFacts]) -> Iterator[Finding]:
    """Route, next hop, and a plain ping. some: one address, in each of its services."""
    one, services = some[0], _services(some)
    lost = f"Packets of {services} for it are dropped as DROP_NO_NEXT_HOP."
    if one.interface is None:
        yield fail(
            "neighbour",
            one.address,
            f"this machine has no route to {one.address}",
            effect=lost,
            command=f"ip route add {one.address} dev INTERFACE",
        )
    elif not one.resolved:
        yield fail(
            "neighbour",
            one.address,
            f"{'the router to ' if one.gateway else ''}{one.address} does not answer on {one.interface}: "
            "it is down, or its address is wrong",
            effect=lost,
            command=_backend_setup(one),
        )
    elif one.gateway and any(each.mode == "l2" for each in some):
        yield fail(
            "neighbour",
            one.address,
            f"{one.address} is behind a router, where mode l2 does not reach",
            effect=lost,
            command=f"sluice service set {next(e.service for e in some if e.mode == 'l2')} --mode ipip",
        )
    elif one.answers.ping is not None and one.answers.ping is not Answer.YES:
        yield fail(
            "reachable",
            one.address,
            f"{one.address} does not answer a ping: it is down, or a filter is in between",
            effect=f"Packets of {services} to it are lost.",
            command=_backend_setup(one),
        )


def headroom(backends: Sequence[BackendFacts]) -> Iterator[Finding]:
    """Whether a full-sized packet fits in its outer header: by the interface's MTU, one finding for each."""
    ways = [one for one in backends if one.interface and one.mtu]
    for interface, some in _groups(ways, lambda one: str(one.interface)):
        worst = max(some, key=lambda one: one.overhead)
        need = FULL_PACKET + worst.overhead
        if worst.mtu >= need:
            yield ok("mtu", interface, f"{interface} takes {worst.mtu} bytes; the longest packet has {need}")
            continue
        yield warn(
            "mtu",
            interface,
            f"a packet of {FULL_PACKET} bytes to {worst.address} has {need} in its outer header ({worst.mode}), "
            f"and {interface} takes {worst.mtu}",
            effect="Clients are told to send less, which costs a round trip; if that message is lost, so are packets.",
            command=f"ip link set dev {interface} mtu {need}",
        )


def answers(some: Sequence[BackendFacts]) -> Iterator[Finding]:
    """What the backend did with real packets: the first thing that is wrong explains those behind it."""
    taken: list[BackendFacts] = []
    for _, same in _groups(some, lambda one: f"{one.mode}, {one.overhead} bytes"):
        if any(one.answers.unwrapped in (Answer.REFUSED, Answer.NOTHING) for one in same):
            yield _not_unwrapped(same[0], _services(same))
        else:
            taken += same
    served: list[BackendFacts] = []
    for _, same in _groups(taken, lambda one: one.vip):
        missing = _vip(same)
        if missing is not None:
            yield missing
        else:
            served += same
    for _, same in _groups(served, lambda one: f"{one.protocol} {one.port} {one.answers.vip}"):
        yield from _server(same)
    if len(taken) == len(some):
        yield from _full_size(some)


def _vip(some: Sequence[BackendFacts]) -> Finding | None:
    """some: one address and VIP."""
    one = some[0]
    asked = [each for each in some if each.answers.vip is not None]
    silent = all(each.answers.vip is Answer.NOTHING for each in asked)
    if one.answers.vip_there is not Answer.NOTHING or not silent:
        return None
    found = fail if asked else warn  # a filter may take the one packet that asked
    return found(
        "vip-on-backend",
        one.address,
        f"{one.address} takes packets, but does not answer for {one.vip}: the VIP is not on its lo, "
        "or its answers do not come back",
        effect=f"Packets of {_services(some)} to it are lost.",
        command=vip_command(one.vip),
        run_on=one.address,
    )


def _server(some: Sequence[BackendFacts]) -> Iterator[Finding]:
    """some: one address, protocol, port, and answer."""
    one = some[0]
    whys = {
        Answer.REFUSED: ("no server listens there", "Clients get a reset instead of an answer."),
        Answer.NOTHING: ("a filter drops it", "Clients wait for an answer until they give up."),
    }
    if one.protocol != "tcp" or one.answers.vip not in whys:
        return
    why, effect = whys[one.answers.vip]
    yield fail(
        "server",
        one.address,
        f"{one.address} does not serve {one.protocol} port {one.port} of {_services(some)}: {why}",
        effect=f"{effect} Start the server; until then, disable the backend.",
        command=" && ".join(f"sluice backend disable {each.service} {one.address}" for each in some),
    )


def _not_unwrapped(one: BackendFacts, services: str) -> Finding:
    refused = one.answers.unwrapped is Answer.REFUSED
    return fail(
        "encapsulation",
        one.address,
        f"{one.address} does not strip the outer header ({one.mode}): "
        + ("its kernel says so by ICMP" if refused else "packets sent in one get no reply"),
        effect=f"Packets of {services} to it are lost.",
        command=_backend_setup(one),
    )


def _full_size(some: Sequence[BackendFacts]) -> Iterator[Finding]:
    short = [one for one in some if one.answers.full_size in (Answer.REFUSED, Answer.NOTHING)]
    if not short:
        return
    one = max(short, key=lambda each: each.overhead)
    need = FULL_PACKET + one.overhead
    yield warn(
        "path-mtu",
        one.address,
        f"a packet of {need} bytes does not reach {one.address}, though {one.interface} takes {one.mtu}",
        effect="Clients' full-sized packets are lost on the way, and nothing tells the clients: uploads hang.",
        command=f'ip link set dev "$({interface_of(one.address)})" mtu {need}',
        run_on=one.address,
    )


def return_path(backends: Iterable[BackendFacts]) -> Iterator[Finding]:
    """Whether clients hear what a backend answers: those that do go on to send more than a SYN."""
    for service, some in _groups(backends, lambda one: one.service):
        heard = any(one.proven and not one.unproven for one in some)
        for one in some:
            if one.unproven < UNPROVEN_TO_TELL:
                continue
            found = fail if heard else warn
            if one.mode == "nat":
                yield _not_back(one, found)
                continue
            yield found(
                "return-path",
                one.address,
                f"{one.unproven} clients of {service} sent a SYN to {one.address}, and none has received its answer",
                effect="Its answers do not reach clients: it drops packets that arrive by another "
                "path than it would answer by (rp_filter), has no route to them, or a filter is in between.",
                command="sysctl -w net.ipv4.conf.all.rp_filter=0 && ip route get CLIENT",
                run_on=one.address,
            )


def _not_back(one: BackendFacts, found: Callable[..., Finding]) -> Finding:
    """Of mode nat: what the backend answers does not come by here."""
    to, way = "the addresses of nat_pools", "Its route to them must lead here"
    if one.keeps_source:
        to, way = (
            "clients",
            "With nat_source keep, its route to clients must lead here, where answers are translated back",
        )
    effect, command = (
        f"Its answers to {to} go elsewhere, or a filter is in between. {way}.",
        _backend_setup(one),
    )
    if one.interface not in one.served:
        effect = (
            f"It is reached by {one.interface}, which is not served: its answers are not translated back."
        )
        command = "sluice serve " + " ".join(f"--interface {name}" for name in (*one.served, one.interface))
    return found(
        "return-path",
        one.address,
        f"{one.unproven} clients of {one.service} sent a SYN to {one.address}, and no answer from it came through here",
        effect=effect,
        command=command,
    )


def _groups(
    some: Iterable[BackendFacts], key: Callable[[BackendFacts], str]
) -> Iterator[tuple[str, list[BackendFacts]]]:
    found: dict[str, list[BackendFacts]] = defaultdict(list)
    for one in some:
        found[key(one)].append(one)
    yield from found.items()


def _services(some: Sequence[BackendFacts]) -> str:
    names = list(dict.fromkeys(one.service for one in some))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _backend_setup(one: BackendFacts) -> str:
    return f"sluice backend-setup {one.service} {one.address} --script | ssh root@{one.address} sh"


def interface_of(address: str) -> str:
    """What says, in a shell there, which interface has an address."""
    return f"ip -o address show to {address} | awk '{{ print $2; exit }}'"


def vip_command(vip: str) -> str:
    """What makes a VIP a backend's own."""
    if "/" in vip:
        return f"ip -6 route replace local {vip} dev lo"
    return f"ip address replace {vip}/{128 if ':' in vip else 32} dev lo"
