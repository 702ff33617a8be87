"""Prefixes: what is read, what is refused and with what words, and the order of their keys."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_strategies import QUICK, any_prefixes, few_prefixes

from lb.model import Prefix
from lb.model.columns import KEY_TYPE


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        (" 192.0.2.0/24\t", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("::/0", "::/0"),
        ("::1", "::1/128"),
        ("::192.0.2.0/120", "::c000:200/120"),
    ],
)
def test_texts_that_are_read(text: str, canonical: str) -> None:
    """Each form is read, and written with its length."""
    assert str(Prefix.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("192.0.2.1/24", "192.0.2.1/24 has host bits set: the network is 192.0.2.0/24"),
        ("2001:db8::1/64", "2001:db8::1/64 has host bits set: the network is 2001:db8::/64"),
        ("192.0.2.0/33", '"192.0.2.0/33" has no valid prefix length: 0 to 32'),
        ("2001:db8::/129", '"2001:db8::/129" has no valid prefix length: 0 to 128'),
        ("192.0.2.0/", "has no valid prefix length"),
        ("192.0.2.0/-1", "has no valid prefix length"),
        ("192.0.2.0/٢", "has no valid prefix length"),
        ("192.0.2.0/255.255.255.0", "has no valid prefix length"),
        ("192.0.2.0 /24", "is not an IPv4 or IPv6 prefix"),
        ("192.0.2", "is not an IPv4 or IPv6 prefix"),
        ("192.0.2.01", "is not an IPv4 or IPv6 prefix"),
        ("192.0.2.256", "is not an IPv4 or IPv6 prefix"),
        ("fe80::1%eth0", "is not an IPv4 or IPv6 prefix"),
        ("", '"" is not an IPv4 or IPv6 prefix'),
        ("a\x1b[31m\0", '"a�[31m�" is not an IPv4 or IPv6 prefix'),
        ("x" * 1000, '"' + "x" * 59 + '…" is not an IPv4 or IPv6 prefix'),
        ("\ud800", "is not an IPv4 or IPv6 prefix"),
        ("::ffff:192.0.2.0/120", "is an IPv4-mapped prefix, which no packet carries: write 192.0.2.0/24"),
        ("::ffff:192.0.2.1", "write 192.0.2.1/32"),
        (7, "a prefix is a string such as 192.0.2.0/24"),
        (None, "a prefix is a string such as 192.0.2.0/24"),
    ],
)
def test_texts_that_are_refused(text: object, says: str) -> None:
    """What is no prefix is refused with a sentence that names what was meant."""
    with pytest.raises(ValueError, match=re.escape(says)):
        Prefix.parse(text)


@QUICK
@given(any_prefixes)
def test_text_and_key_are_inverted(prefix: Prefix) -> None:
    """Text and key each lead back to the prefix; the text is that of ipaddress."""
    assert Prefix.parse(str(prefix)) == prefix
    assert Prefix.from_key(prefix.key) == prefix
    kind = IPv4Network if prefix.family == 4 else IPv6Network
    assert ip_network(str(prefix)) == kind((prefix.network, prefix.length))


@QUICK
@given(st.lists(any_prefixes | few_prefixes, min_size=1), st.sampled_from([4, 6]))
def test_keys_sort_as_prefixes(prefixes: list[Prefix], family: int) -> None:
    """Sorted as numpy keys, prefixes stand in order of network and length."""
    mine = [p for p in prefixes if p.family == family]
    keys = np.sort(np.array([p.key for p in mine], KEY_TYPE[family]))

    assert [Prefix.from_key(key) for key in keys.tolist()] == sorted(mine)


@QUICK
@given(few_prefixes, few_prefixes)
def test_contains_is_subnet_of(one: Prefix, two: Prefix) -> None:
    """A prefix contains another where ipaddress calls that one a subnet; never one of the other family."""
    outer, inner = ip_network(str(one)), ip_network(str(two))
    expected = outer.version == inner.version and inner.subnet_of(outer)  # type: ignore[arg-type]

    assert one.contains(two) == expected
