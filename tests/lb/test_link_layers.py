"""lb/dataplane/link_facts.py: which devices an interface's packets come in by."""

from lb.dataplane.link_facts import Layer, cards_of, vlans_on

LAYERS = {
    1: Layer("lo"),
    2: Layer("eth0", master=4),
    3: Layer("eth1", "veth", below=77, master=4),
    4: Layer("bond0", "bond"),
    5: Layer("bond0.5", "vlan", below=4),
    6: Layer("bond0.5.6", "vlan", below=5),
    7: Layer("eth2"),
    8: Layer("mac0", "macvlan", below=7),
    9: Layer("br0", "bridge"),
    10: Layer("far.5", "vlan", below=None, master=9),
}


def test_card_is_its_own() -> None:
    """What stands on nothing of this machine is a card; the other end of a veth is none of it."""
    assert (cards_of(2, LAYERS), cards_of(3, LAYERS), cards_of(7, LAYERS)) == (["eth0"], ["eth1"], ["eth2"])


def test_devices_above_stand_on_cards() -> None:
    """Bonds have their ports, VLANs and macvlans what they are put on, through all layers."""
    assert cards_of(4, LAYERS) == cards_of(5, LAYERS) == cards_of(6, LAYERS) == ["eth0", "eth1"]
    assert cards_of(8, LAYERS) == ["eth2"]
    assert cards_of(9, LAYERS) == ["far.5"]


def test_what_is_gone_has_no_cards() -> None:
    """A device that went away meanwhile is no error."""
    assert cards_of(99, LAYERS) == []


def test_vlans_are_those_on_top() -> None:
    """Of a device those that are put on itself."""
    assert (vlans_on(4, LAYERS), vlans_on(5, LAYERS), vlans_on(2, LAYERS)) == (["bond0.5"], ["bond0.5.6"], [])
