"""Tests backends with real packets, from this machine's own address: pings, plain, full-sized, and in the outer header.

An echo request that goes to the backend's own address in the outer header of clients' packets comes back if the backend
takes that header off, whether it has a VIP or not; a kernel that does not know the header says so by ICMP. The VIP is
asked by TCP from marked sockets, whose packets the data plane carries to the backend in question (probe_path.py).
"""

import contextlib
import errno
import itertools
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lb.dataplane import packets
from lb.dataplane.layout import layout
from lb.dataplane.protocol import BackendQuestion
from lb.doctor.facts import Answer, BackendAnswers

PATIENCE_SECONDS = 2.0
"""How long an answer may take."""
TRIES = 2
NOBODYS_PORT = 1
"""tcpmux: a machine that has the VIP refuses it, or takes it."""
_PORTS_TRIED = 100
_SO_MARK = 36
_RESET = struct.pack("ii", 1, 0)
"""Closed by a reset, a connection does not hold its port for a minute."""
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
        pinger, dialer = _Pinger(stack), _Dialer(stack)
        probes = [pinger.probe(question) for question in questions]
        for probe, question in zip(probes, questions, strict=True):
            probe.asked |= dialer.dial(question)
        pinger.run(dialer)
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

    def run(self, dialer: "_Dialer") -> None:
        """Send all, twice where nothing comes, and wait for the answers."""
        for _ in range(TRIES):
            waiting = [one for one in self._asked.values() if one.answer is Answer.NOTHING]
            for one in waiting:
                one.send()
            deadline = time.monotonic() + PATIENCE_SECONDS / TRIES
            while (rest := deadline - time.monotonic()) > 0:
                if not dialer.waiting and not any(one.answer is Answer.NOTHING for one in waiting):
                    break
                dialer.look(self._raw.values(), rest)
                for family, each in self._raw.items():
                    for data in _received(each):
                        self._take(family, data)

    def _take(self, family: int, data: bytes) -> None:
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


class _Dialer:
    """TCP connections that are carried to one backend, whatever the ring says."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        constants = layout().constants
        first, last = constants["PROBE_PORT_FIRST"], constants["PROBE_PORT_LAST"]
        self._ports = itertools.cycle(random.sample(range(first, last + 1), last + 1 - first))
        self._same: dict[tuple[object, ...], _Asked] = {}
        self.waiting: dict[socket.socket, _Asked] = {}

    def dial(self, question: BackendQuestion) -> dict[str, _Asked]:
        """Whether the VIP is there at all, told by a port that nobody serves; and the service's own port."""
        serves_itself = question.mode == "nat"  # it has no VIP
        if question.way is None and not serves_itself:
            return {}
        asked = {} if serves_itself else {"vip_there": self._connect(question, NOBODYS_PORT)}
        if question.protocol == "tcp" and question.port:
            asked["vip"] = self._connect(question, question.port)
        return asked

    def _connect(self, question: BackendQuestion, port: int) -> _Asked:
        key = (question.address, question.mode, question.vip, port)
        if key not in self._same:
            self._same[key] = self._begin(question, port)
        return self._same[key]

    def _begin(self, question: BackendQuestion, port: int) -> _Asked:
        to = question.vip if question.way else question.address
        kind = socket.AF_INET6 if ":" in to else socket.AF_INET
        asked = _Asked(lambda: None)
        try:
            made = self._stack.enter_context(socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            if question.way:
                mark, source = question.way
                made.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
                self._bind(made, source)
            code = made.connect_ex((to, port))
        except OSError:
            asked.answer = None  # it says nothing of the backend
            return asked
        self.waiting[made] = asked
        if code != errno.EINPROGRESS:
            self._end(made, code)
        return asked

    def _bind(self, made: socket.socket, source: str) -> None:
        for port in itertools.islice(self._ports, _PORTS_TRIED):
            try:
                made.bind((source, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    def look(self, raw: Iterable[socket.socket], seconds: float) -> None:
        """Wait until something has come, for a connection or one of these; what has come for connections is taken."""
        poll = select.poll()
        for each in raw:
            poll.register(each, select.POLLIN)
        by_number = {made.fileno(): made for made in self.waiting}
        for number in by_number:
            poll.register(number, select.POLLOUT)
        for number, _ in poll.poll(seconds * 1000):
            if number in by_number:
                made = by_number[number]
                self._end(made, made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _end(self, made: socket.socket, code: int) -> None:
        asked = self.waiting.pop(made)
        if code == 0:
            asked.answer = Answer.YES
        elif code in (errno.ECONNREFUSED, errno.ECONNRESET):
            asked.answer = Answer.REFUSED


def _received(raw: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            data = raw.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ENETUNREACH, errno.EMSGSIZE):
                continue
            raise
        yield data


def source_for(address: str) -> str | None:
    """The address that this machine sends from to another; None: it has no route."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as asked:
        asked.connect((address, 9))
        source: str = asked.getsockname()[0]
        return source
    return None
