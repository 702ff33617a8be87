"""Packet filters as tcpdump has them: libpcap compiles and runs them, called through ctypes."""

import ctypes
from ctypes import POINTER, byref, c_char_p, c_int, c_long, c_uint32, c_void_p
from functools import cache

from lb.errors import SetupError

_ETHERNET = 1
_SNAP = 262_144
_NO_NETMASK = 0xFFFFFFFF


class FilterError(ValueError):
    """Raised when an expression is no filter; holds libpcap's words."""


class _Program(ctypes.Structure):
    _fields_ = [("length", c_uint32), ("instructions", c_void_p)]


class _Header(ctypes.Structure):
    _fields_ = [("seconds", c_long), ("micros", c_long), ("captured", c_uint32), ("length", c_uint32)]


@cache
def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libpcap.so.0.8")
    except OSError as error:
        raise SetupError(
            f"filters need libpcap, which could not be loaded ({error}): run make setup, or install libpcap0.8"
        ) from error
    lib.pcap_open_dead.restype = c_void_p
    lib.pcap_open_dead.argtypes = [c_int, c_int]
    lib.pcap_compile.argtypes = [c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32]
    lib.pcap_geterr.restype = c_char_p
    lib.pcap_geterr.argtypes = [c_void_p]
    lib.pcap_offline_filter.argtypes = [POINTER(_Program), POINTER(_Header), c_char_p]
    lib.pcap_freecode.argtypes = [POINTER(_Program)]
    lib.pcap_close.argtypes = [c_void_p]
    return lib


class Filter:
    """An expression that says of Ethernet frames which are meant. FilterError, SetupError."""

    def __init__(self, expression: str) -> None:
        self._program = _Program()
        lib = _library()
        handle = lib.pcap_open_dead(_ETHERNET, _SNAP)
        try:
            if lib.pcap_compile(handle, byref(self._program), expression.encode(), 1, _NO_NETMASK) != 0:
                raise FilterError((lib.pcap_geterr(handle) or b"").decode(errors="replace"))
        finally:
            lib.pcap_close(handle)

    def matches(self, data: bytes, length: int) -> bool:
        """Whether it means a frame, of whose `length` bytes these are the first."""
        header = _Header(0, 0, len(data), max(length, len(data)))
        return bool(_library().pcap_offline_filter(byref(self._program), byref(header), data))

    def close(self) -> None:
        """Free the compiled program."""
        _library().pcap_freecode(byref(self._program))
