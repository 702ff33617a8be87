"""How a service's backends are checked, as the operator writes it."""

import re
from collections.abc import Iterator
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any

import re2
from pydantic import Field, model_validator

from lb.model.fields import OneLine, Strict, faults

INTERVAL_LEAST, INTERVAL_MOST = 0.1, 3600.0
COUNT_MOST = 100
SLOW_START_MOST = 3600
TEXT_MOST = 1024
HEX = "hex:"
"""What a request or reply begins with that is written in hexadecimal digits."""

_REGEX_BYTES = 1 << 20
"""Memory of a compiled expression, at most: it bounds the time too."""
_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]+")
_SERVER_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_FIRST_FINAL = 200
_HEADER_RCODE_MOST = 15
"""RFC 6891: what is beyond needs an OPT record."""

Fault = tuple[tuple[int | str, ...], str]
Text = Annotated[OneLine, Field(max_length=TEXT_MOST)]


@lru_cache(maxsize=256)
def compiled(regex: str) -> Any:
    """An expression that takes time linear in the text, whatever that is. ValueError: it is none, or too large."""
    options = re2.Options()
    options.log_errors, options.max_mem = False, _REGEX_BYTES
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        [said] = error.args
        says = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise ValueError(f"it is not an RE2 expression: {says}") from error


class CheckType(StrEnum):
    """What is asked of a backend."""

    TCP = "tcp"
    HTTP = "http"
    HTTPS = "https"
    UDP = "udp"
    DNS = "dns"
    COMMAND = "command"


class Via(StrEnum):
    """How a check goes: to the VIP at that very backend, as clients' packets do, or to its own address."""

    DATA_PATH = "data-path"
    DIRECT = "direct"


class AllDown(StrEnum):
    """What becomes of a service all of whose backends are unhealthy: they get packets all the same, or none does."""

    OPEN = "open"
    CLOSED = "closed"


class Established(StrEnum):
    """What becomes of the flows that an unhealthy backend has: they stay with it, or move at once."""

    KEEP = "keep"
    MOVE = "move"


class Method(StrEnum):
    """What an HTTP check asks with."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    OPTIONS = "OPTIONS"


class Passive(Strict):
    """What the packet path sees of a backend's clients: SYNs sent again, and ICMP unreachables that quote its flows."""

    vote: bool = Field(
        False,
        strict=True,
        description="a backend over a threshold fails its checks, whatever they find; false: it is only shown",
    )
    syn_retries: int = Field(
        20, ge=1, strict=True, description="this many repeated SYNs within the window are too many"
    )
    unreachables: int = Field(
        20, ge=1, strict=True, description="this many ICMP unreachables within the window are too many"
    )
    window_seconds: int = Field(10, ge=1, le=600, strict=True)


_ONLY: dict[str, frozenset[CheckType]] = {
    **dict.fromkeys(
        ("path", "method", "host", "status", "body", "body_regex"),
        frozenset({CheckType.HTTP, CheckType.HTTPS}),
    ),
    **dict.fromkeys(("server_name", "verify", "ca_file"), frozenset({CheckType.HTTPS})),
    **dict.fromkeys(("request", "reply"), frozenset({CheckType.UDP})),
    **dict.fromkeys(("dns_name", "dns_type", "dns_rcode"), frozenset({CheckType.DNS})),
    "command": frozenset({CheckType.COMMAND}),
}
"""Fields that mean something to these types alone."""


class HealthCheck(Strict):
    """How often backends are asked, what, and what follows from their answers."""

    type: CheckType = Field(description="type of check")
    via: Via | None = Field(
        None,
        description="path of the check; null: through the data path, except for commands and mode nat, which go direct",
    )
    port: int | None = Field(
        None,
        ge=1,
        le=65535,
        strict=True,
        description="the port to check; null: the backend's own, or the service's",
    )
    interval_seconds: float = Field(
        5.0,
        ge=INTERVAL_LEAST,
        le=INTERVAL_MOST,
        strict=True,
        description="seconds from one check of a backend to the next",
    )
    timeout_seconds: float = Field(
        2.0,
        gt=0,
        le=INTERVAL_MOST,
        strict=True,
        description="seconds within which an answer must come; at most the interval",
    )
    rise: int = Field(
        2,
        ge=1,
        le=COUNT_MOST,
        strict=True,
        description="this many consecutive good checks make a backend healthy",
    )
    fall: int = Field(
        3, ge=1, le=COUNT_MOST, strict=True, description="this many consecutive bad checks make it unhealthy"
    )

    path: Text = Field("/", description="http, https: the path to request")
    method: Method = Method.GET
    host: Text | None = Field(None, description="http, https: the Host header; null: the VIP")
    status: Text = Field(
        "200-299",
        description="http, https: the good status codes, as a list of codes and ranges",
        examples=["200-299,301"],
    )
    body: Text | None = Field(
        None,
        description="http, https: text that the first 64 KiB of the body must contain",
        examples=[None, "ok"],
    )
    body_regex: Text | None = Field(
        None,
        description="http, https: a regular expression that must be found there, as RE2 has them: without back "
        "references and look-around",
        examples=[None, "^ready"],
    )
    server_name: Text | None = Field(
        None,
        description="https: the name asked for in TLS (SNI), and looked for in the certificate; null: host",
    )
    verify: bool = Field(
        False, strict=True, description="https: verify the certificate, its name (server_name) and validity"
    )
    ca_file: Text | None = Field(
        None, description="https: trusted CAs, a PEM file on this machine; null: the system's"
    )

    request: Text | None = Field(
        None,
        description='udp: the datagram that is sent, as text or, after "hex:", in hexadecimal digits',
        examples=[None, "ping", "hex:00010203"],
    )
    reply: Text | None = Field(
        None, description="udp: what the answer must begin with, in the same form; null: any answer is good"
    )

    dns_name: Text | None = Field(None, description="dns: the name to query", examples=[None, "example.com"])
    dns_type: Text = Field("A", description="dns: the record type to query")
    dns_rcode: Text = Field("NOERROR", description="dns: the expected response code", examples=["NOERROR"])

    command: tuple[Text, ...] | None = Field(
        None,
        max_length=64,
        description="command: a program by its absolute path, and its arguments, run without a shell, as nobody; "
        "exit code 0 is good",
        examples=[None, ["/usr/local/bin/check-backend", "--quick"]],
    )

    when_all_down: AllDown = Field(
        AllDown.OPEN,
        description="all backends unhealthy: open sends packets to all of them, for the checks may be what is "
        "broken; closed drops packets",
    )
    mass_failure_guard: float | None = Field(
        None,
        gt=0,
        lt=1,
        strict=True,
        description="when more than this share of the backends that would take new flows becomes unhealthy at once, "
        "all of them keep the state they had, and it is said; null: no such guard",
        examples=[None, 0.5],
    )
    slow_start_seconds: int = Field(
        0,
        ge=0,
        le=SLOW_START_MOST,
        strict=True,
        description="seconds over which a returning backend's share grows, from an eighth to all of it",
    )
    established: Established = Field(
        Established.KEEP,
        description="flows of a backend that became unhealthy: keep lets them end there, move sends them to others "
        "at once; those of a service with udp_migration always move",
    )
    passive: Passive | None = Field(
        None, description="signals from clients' packets, counted too; null: none"
    )

    @model_validator(mode="after")
    def _check(self) -> "HealthCheck":
        faults(self._faults())
        return self

    def _faults(self) -> Iterator[Fault]:
        if self.timeout_seconds > self.interval_seconds:
            yield (
                ("timeout_seconds",),
                f"{self.timeout_seconds:g} s is longer than the interval of {self.interval_seconds:g} s: "
                "checks would overtake each other; give that much or less",
            )
        for name, types in _ONLY.items():
            if self.type not in types and getattr(self, name) != type(self).model_fields[name].default:
                yield (name,), f"only checks of type {' and '.join(sorted(types))} have it: leave it out"
        if self.type in (CheckType.HTTP, CheckType.HTTPS):
            yield from self._http_faults()
        elif self.type is CheckType.UDP:
            yield from self._udp_faults()
        elif self.type is CheckType.DNS:
            yield from self._dns_faults()
        elif self.type is CheckType.COMMAND:
            yield from self._command_faults()

    def _http_faults(self) -> Iterator[Fault]:
        if not _PATH.fullmatch(self.path):
            yield ("path",), 'a path begins with "/" and holds no space and only ASCII: escape others as %XX'
        if self.host is not None and not _HOST.fullmatch(self.host):
            yield (
                ("host",),
                f'"{self.host}" is not a host: write a name or an address, and a port if it has one',
            )
        try:
            _statuses(self.status)
        except ValueError as error:
            yield ("status",), str(error)
        for name in ("body", "body_regex"):
            if self.method is Method.HEAD and getattr(self, name) is not None:
                yield (name,), "an answer to HEAD has no body: use method GET, or leave it out"
        if self.body_regex is not None:
            try:
                compiled(self.body_regex)
            except ValueError as error:
                yield ("body_regex",), str(error)
        if self.type is CheckType.HTTPS:
            yield from self._tls_faults()

    def _tls_faults(self) -> Iterator[Fault]:
        if self.server_name is not None and not _SERVER_NAME.fullmatch(self.server_name):
            yield ("server_name",), f'"{self.server_name}" is not a host name that TLS accepts'
        if self.verify and self.server_name is None and self.host is None:
            yield (
                ("server_name",),
                "verify needs the name that the certificate is for: give server_name or host",
            )
        if self.ca_file is not None and not self.verify:
            yield ("ca_file",), "it is used only to verify: set verify to true, or leave it out"
        if self.ca_file is not None and not self.ca_file.startswith("/"):
            yield ("ca_file",), "give the absolute path, from / on"

    def _udp_faults(self) -> Iterator[Fault]:
        if self.request is None:
            yield ("request",), "a udp check needs what to send: only an answer tells that a backend is there"
        for name in ("request", "reply"):
            try:
                datagram(getattr(self, name) or "")
            except ValueError as error:
                yield (name,), str(error)

    def _dns_faults(self) -> Iterator[Fault]:
        import dns.exception
        import dns.name
        import dns.rcode
        import dns.rdatatype

        if self.dns_name is None:
            yield ("dns_name",), "a dns check needs a name to query"
        else:
            try:
                dns.name.from_text(self.dns_name)
            except (dns.exception.DNSException, UnicodeError) as error:
                yield ("dns_name",), f'"{self.dns_name}" is not a domain name: {error}'
        try:
            kind = dns.rdatatype.from_text(self.dns_type)
            if dns.rdatatype.is_metatype(kind) and kind != dns.rdatatype.ANY:
                yield (
                    ("dns_type",),
                    f"{self.dns_type} cannot be queried: write a type such as A, AAAA or SOA",
                )
        except (dns.exception.DNSException, ValueError):
            yield (
                ("dns_type",),
                f'"{self.dns_type}" is not a record type: write one such as A, AAAA or SOA',
            )
        try:
            code = dns.rcode.from_text(self.dns_rcode)
            if code > _HEADER_RCODE_MOST:
                yield ("dns_rcode",), f"{self.dns_rcode} needs EDNS, which no check asks with: write NOERROR"
        except (dns.exception.DNSException, ValueError):
            yield (
                ("dns_rcode",),
                f'"{self.dns_rcode}" is not a response code: write one such as NOERROR or NXDOMAIN',
            )

    def _command_faults(self) -> Iterator[Fault]:
        if not self.command:
            yield ("command",), "a command check needs a program: a list of its path and its arguments"
        elif not self.command[0].startswith("/"):
            yield ("command", 0), f'"{self.command[0]}" is not an absolute path: write it from / on'
        if self.via is Via.DATA_PATH:
            yield ("via",), "a command sends its own packets: leave via out, or write direct"
        if self.port is not None:
            yield ("port",), "a command is given the service's port: leave it out"

    @cached_property
    def statuses(self) -> tuple[tuple[int, int], ...]:
        """The ranges of status codes that are good."""
        return _statuses(self.status)

    def is_direct(self, mode: str) -> bool:
        """Whether a service of that mode is checked at its backends' own addresses."""
        if self.type is CheckType.COMMAND or mode == "nat":
            return True
        return self.via is Via.DIRECT


def _statuses(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in text.split(","):
        match = _STATUS.fullmatch(part.strip())
        if not match:
            raise ValueError(f'"{part.strip()}" is not a status code or range of them: write 200-299,301')
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise ValueError(f"the range {low}-{high} is backwards: write {high}-{low}")
        if high < _FIRST_FINAL:
            raise ValueError(f"{part.strip()}: a server answers with 1xx while it goes on: write 200-299")
        found.append((low, high))
    return tuple(found)


def datagram(text: str) -> bytes:
    """The bytes that a request or reply stands for; ValueError."""
    if not text.startswith(HEX):
        return text.encode()
    try:
        return bytes.fromhex(text.removeprefix(HEX))
    except ValueError:
        raise ValueError(f'"{HEX}" is followed by pairs of hexadecimal digits, such as {HEX}0001ff') from None
