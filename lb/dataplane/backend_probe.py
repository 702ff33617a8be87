"""Backends tried with real packets, from this machine's own address: pings, plain, full-sized, and in the outer header.

An echo request that goes to the backend's own address in the outer header of clients' packets comes back if the backend
takes that header off, whether it has a VIP or not; a kernel that does not know the header says so by ICMP.
"""

import contextlib
import errno
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from lb.dataplane import packets
from lb.dataplane.protocol import BackendQuestion
from lb.doctor.facts import Answer, BackendAnswers

PATIENCE_SECONDS = 1.0
"""How long an answer may take."""
TRIES = 2
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_ECHO_REPLY, _UNREACHABLE = 0, 3
_ECHO_REPLY6, _ERRORS6 = 129, {1, 2, 4}


@dataclass(slots=True)
class _Asked:
    """One packet that waits for its answer; send puts it on its way."""

    send: Callable[[], None]
    answer: Answer | None = Answer.NOTHING


@dataclass(slots=True)
class _Probe:
    """What one address and outer header were asked, by what it is for."""

    asked: dict[str, _Asked] = field(default_factory=dict)


def ask_backends(questions: Sequence[BackendQuestion]) -> list[BackendAnswers]:
    """See DataPlane."""
    with contextlib.ExitStack() as stack:
        pinger = _Pinger(stack)
        probes = [pinger.probe(question) for question in questions]
        pinger.run()
    return [BackendAnswers(**{name: asked.answer for name, asked in probe.asked.items()}) for probe in probes]


class _Pinger:
    """Raw ICMP sockets, what was sent by them, and what has come back. Without CAP_NET_RAW nothing is asked."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._identifier = os.getpid() & 0xFFFF
        self._numbers = itertools.count(int(time.monotonic() * 1000))
        self._asked: dict[tuple[int, int], _Asked] = {}
        """By family and sequence number."""
        self._wrapped: dict[tuple[str, int], list[_Asked]] = {}
        """Those in an outer header, by its destination and protocol."""
        self._same: dict[tuple[object, ...], _Asked] = {}
        self._raw: dict[int, socket.socket] = {}
        self._stack = stack
        with contextlib.suppress(PermissionError):
            self._raw[4] = self._open(socket.AF_INET, packets.ICMP)
            self._raw[6] = self._open(socket.AF_INET6, packets.ICMP6)

    def _open(self, family: int, protocol: int) -> socket.socket:
        made = self._stack.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
        if family == socket.AF_INET:
            made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        made.setblocking(False)
        return made

    def probe(self, question: BackendQuestion) -> _Probe:
        """Prepare what a backend is asked; what several services ask alike is sent once."""
        probe, address, family = _Probe(), question.address, packets.family_of(question.address)
        source = source_for(address)
        if family not in self._raw or source is None:
            return probe
        probe.asked["ping"] = self._once(("ping", address), lambda: self._ping(source, address, 0))
        if question.full_size:
            octets = question.full_size - (28 if family == 4 else 48)
            probe.asked["full_size"] = self._once(
                ("full", address, octets), lambda: self._ping(source, address, octets)
            )
        wraps = packets.outer_bytes(question.mode, family) > 0
        if wraps and packets.family_of(question.vip) == family:
            key = ("unwrapped", address, question.mode)
            probe.asked["unwrapped"] = self._once(key, lambda: self._wrapped_ping(source, question))
        return probe

    def _once(self, key: tuple[object, ...], make: Callable[[], _Asked]) -> _Asked:
        if key not in self._same:
            self._same[key] = make()
        return self._same[key]

    def _number(self, family: int, asked: _Asked) -> int:
        number = next(self._numbers) & 0xFFFF
        self._asked[family, number] = asked
        return number

    def _ping(self, source: str, address: str, octets: int) -> _Asked:
        family = packets.family_of(address)
        asked = _Asked(lambda: None)
        request = packets.echo_request(source, address, self._identifier, self._number(family, asked), octets)
        asked.send = lambda: self._send(self._raw[family], request, address)
        return asked

    def _wrapped_ping(self, source: str, question: BackendQuestion) -> _Asked:
        address, family = question.address, packets.family_of(question.address)
        asked = _Asked(lambda: None)
        request = packets.echo_request(source, address, self._identifier, self._number(family, asked))
        inner = packets.ip_packet(source, address, packets.ICMP if family == 4 else packets.ICMP6, request)
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        if question.mode == "gue":
            protocol, port = packets.GUE, question.gue_port
            sender = socket.socket(kind, socket.SOCK_DGRAM)
        else:
            protocol, port = packets.IPIP if family == 4 else packets.IPV6_IN_IP, 0
            sender = socket.socket(kind, socket.SOCK_RAW, protocol)
        self._stack.enter_context(sender)
        self._wrapped.setdefault((address, protocol), []).append(asked)
        asked.send = lambda: self._send(sender, inner, address, port)
        return asked

    @staticmethod
    def _send(sender: socket.socket, data: bytes, address: str, port: int = 0) -> None:
        """What the kernel refuses gets no answer, and says so by that."""
        with contextlib.suppress(OSError):
            sender.sendto(data, (address, port))

    def run(self) -> None:
        """Send all, twice where nothing comes, and wait for the answers."""
        for _ in range(TRIES):
            waiting = [one for one in self._asked.values() if one.answer is Answer.NOTHING]
            for one in waiting:
                one.send()
            deadline = time.monotonic() + PATIENCE_SECONDS / TRIES
            while (rest := deadline - time.monotonic()) > 0:
                if not any(one.answer is Answer.NOTHING for one in waiting):
                    break
                ready, _, _ = select.select(list(self._raw.values()), [], [], rest)
                for each in ready:
                    for data, sender in _received(each):
                        self._take(4 if each is self._raw[4] else 6, data, sender)

    def _take(self, family: int, data: bytes, sender: str) -> None:
        """One ICMP message: a reply, or an error that quotes what was sent."""
        if family == 4:
            data = data[(data[0] & 0xF) * 4 :]
        if len(data) < 8:
            return
        kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", data)
        if kind == (_ECHO_REPLY if family == 4 else _ECHO_REPLY6) and identifier == self._identifier:
            asked = self._asked.get((family, sequence))
            if asked is not None:
                asked.answer = Answer.YES
        elif kind == _UNREACHABLE if family == 4 else kind in _ERRORS6:
            self._refuse(family, data[8:])

    def _refuse(self, family: int, quote: bytes) -> None:
        if len(quote) < (20 if family == 4 else 40):
            return
        protocol = quote[9] if family == 4 else quote[6]
        packed = quote[16:20] if family == 4 else quote[24:40]
        address = socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, packed)
        for asked in self._wrapped.get((address, protocol), []):
            if asked.answer is Answer.NOTHING:
                asked.answer = Answer.REFUSED


def _received(raw: socket.socket) -> Iterator[tuple[bytes, str]]:
    while True:
        try:
            data, sender = raw.recvfrom(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EMSGSIZE):
                continue
            raise
        yield data, sender[0]


def source_for(address: str) -> str | None:
    """The address that this machine sends from to another; None: it has no route."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as asked:
        asked.connect((address, 9))
        source: str = asked.getsockname()[0]
        return source
    return None
