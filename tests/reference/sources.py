"""Sources that can be no client's."""

_LOOPBACK6 = bytes(15) + b"\1"


def is_nobodys(address: bytes) -> bool:
    """Whether a packed address is of this host, of loopback or of a group: nobody can be answered there."""
    if len(address) == 4:
        return address[0] in (0, 127) or address[0] >> 4 == 14
    return address[0] == 0xFF or address in (bytes(16), _LOOPBACK6)
