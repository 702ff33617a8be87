"""The lab's description of itself: names, addresses, and documents that the model accepts."""

import pytest
from topology import CONFIGURATIONS, LONGEST_INTERFACE_NAME, VIPS, Names, Role, namespaces

from lb.model import Affinity, Config, Mode, Service
from lb.model.document import from_mapping


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_documents_are_valid_desired_state(name: str) -> None:
    """The services of every configuration pass the model's validation, and no two take the same packets."""
    document = CONFIGURATIONS[name].document

    assert len(from_mapping(dict(document), now=0.0, have=Config()).services) == len(document["services"]) > 0


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_hosts_have_addresses_of_their_own(name: str) -> None:
    """No two hosts share a MAC or an address, and none has a VIP."""
    hosts = CONFIGURATIONS[name].hosts
    addresses = [address.ip for host in hosts for address in host.addresses]

    assert len({host.mac for host in hosts}) == len(hosts)
    assert len(set(addresses)) == len(addresses)
    assert not [address for address in addresses for vips in VIPS if address in vips]


def test_lab_owns_its_namespaces_and_no_others() -> None:
    """A lab knows every namespace of its own, and none of a lab whose name begins like its own."""
    configuration = CONFIGURATIONS["default"]
    mine, similar = Names("a"), Names("a-client1")

    assert all(mine.is_namespace(namespace) for *_, namespace in namespaces(mine, configuration))
    assert not any(mine.is_namespace(namespace) for *_, namespace in namespaces(similar, configuration))


@pytest.mark.parametrize("name", ["a", "twelve-chars", "one-more-than-fits", "x" * 32])
def test_balancer_interface_fits_the_kernel(name: str) -> None:
    """Whatever a lab is called, its balancer's interface has a short enough name that says whose it is."""
    interface = Names(name).balancer_interface

    assert len(interface) <= LONGEST_INTERFACE_NAME
    assert interface.startswith("sl-")


def test_long_names_give_interfaces_of_their_own() -> None:
    """Two labs whose names differ only at the end do not share an interface's name, nor their pins."""
    assert (
        Names("a-rather-long-name-1").balancer_interface != Names("a-rather-long-name-2").balancer_interface
    )


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "a b", "../etc", "x" * 33])
def test_impossible_names_are_refused(name: str) -> None:
    """A name that could not be part of a path or a namespace's name is refused with what is allowed."""
    with pytest.raises(ValueError, match="small letters"):
        Names(name)


def test_conformance_has_backends_of_both_families() -> None:
    """Each backend has an address of each family, and the configuration's services use both."""
    configuration = CONFIGURATIONS["conformance"]
    used = {b["address"] for service in configuration.document["services"] for b in service["backends"]}

    assert used == {str(a.ip) for host in configuration.of_role(Role.BACKEND) for a in host.addresses}


def test_conformance_has_every_kind_of_service() -> None:
    """Every mode, affinity and option that a service may have is in use, and so are VIPs of every kind.

    Mode nat has a configuration of its own, whose balancer has the pool's addresses.
    """
    services = [Service.model_validate(s) for s in CONFIGURATIONS["conformance"].document["services"]]

    assert {s.mode for s in services} == set(Mode) - {Mode.NAT}
    assert {s.affinity for s in services} == set(Affinity)
    assert {(s.vip.version, s.quic) for s in services if s.quic} == {(4, True), (6, True)}
    assert all(b.quic_id for s in services if s.quic for b in s.backends)
    assert [s.name for s in services if s.udp_migration] == ["udp-moves"]
    assert {s.vip_length for s in services} == {0, 80}
    assert {s.vip.version for s in services if not s.backends} == {4, 6}
