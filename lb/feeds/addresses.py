"""Where a URL leads: every address of its host, none of them private unless that is allowed."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from lb.errors import FeedError
from lb.feeds.waiting import apart

_NAT64 = ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(map(ip_network, ("::/96", "fec0::/10")))
"""IPv4-compatible and site-local addresses (RFC 4291, both deprecated): ipaddress takes them for global ones."""
Address = IPv4Address | IPv6Address


async def addresses_of(host: str, port: int, *, allow_private: bool) -> list[str]:
    """The addresses of a host, in the resolver's order.

    FeedError: it has none, or (unless allow_private) one that is not of the public internet. A caller connects to
    one of these, and never to the name: a second answer of the resolver could be another.
    """
    try:
        found = await apart(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise FeedError(f'the host "{host}" is not found ({said}): check the URL and the resolver') from None
    texts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for text in texts:
        if not (allow_private or is_public(ip_address(text))):
            raise FeedError(
                f'the host "{host}" is {text}, which is not an address of the public internet: '
                "give another URL, or set allow_private_url"
            )
    return texts


def is_public(address: Address) -> bool:
    """Whether an address, and the IPv4 one that it may stand for, is of the public internet."""
    every = [address]
    if isinstance(address, IPv6Address):
        every += [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
        if address in _NAT64:
            every.append(IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return all(one.is_global and not one.is_multicast for one in every)
