"""How to prepare the backends of a service, and which of that other services need too."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from lb.dataplane.backend_probe import source_for
from lb.dataplane.packets import outer_bytes
from lb.doctor.preparation import Preparation, Wish, prepare
from lb.errors import InvalidError, NotFoundError
from lb.model import Config, Mode, Service
from lb.model.service import NatSource


def preparations(config: Config, name: str, address: str | None, *, undo: bool) -> list[Preparation]:
    """For the backends of a service, or one of them; one for those of IPv4, one for those of IPv6.

    NotFoundError: there is no such service, or it has no such backend. InvalidError: it has none at all.
    """
    service = config.service(name)
    addresses = [str(one.address) for one in service.backends]
    if address is not None:
        if address not in addresses:
            raise NotFoundError(
                f'service "{name}" has no backend {address}: see "sluice backend list {name}"'
            )
        addresses = [address]
    if not addresses:
        raise InvalidError.one(
            "", f'service "{name}" has no backend: add one with "sluice backend add {name}"'
        )
    by_family = groupby(sorted(addresses, key=_family), key=_family)
    others = [one for one in config.services.values() if one.name != name]
    return [prepare(_wish(config, service, tuple(some), others, undo=undo)) for _, some in by_family]


def _family(address: str) -> int:
    return 6 if ":" in address else 4


def _wish(
    config: Config, service: Service, addresses: tuple[str, ...], others: Iterable[Service], *, undo: bool
) -> Wish:
    mode, vip, family = str(service.mode), str(service.vip), _family(addresses[0])
    gateway = source_for(addresses[0]) or "" if service.mode is Mode.NAT else ""
    beside = [one for one in others if {str(b.address) for b in one.backends} & set(addresses)]
    return Wish(
        service.name,
        vip,
        mode,
        addresses,
        outer_bytes(mode, family),
        config.settings.gue_port,
        undo,
        keeps_vip=any(str(one.vip) == vip for one in beside),
        keeps_tunnel=any(outer_bytes(str(one.mode), family) for one in beside),
        keeps_arp=any(_family(str(one.vip)) == 4 for one in beside),
        gateway=gateway,
        answers_to=tuple(_answers_to(config, service, family, gateway)) if gateway else (),
    )


def _answers_to(config: Config, service: Service, family: int, gateway: str) -> Iterator[str]:
    """What the backends of a service of mode nat have to answer by the balancer: all, or where it sends from."""
    if service.nat_source is NatSource.KEEP:
        yield "default"
        return
    for pool in config.settings.nat_pools:
        if pool.version == family and str(pool.network_address) != gateway:
            yield str(pool)
