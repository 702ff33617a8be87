"""Each type of probe against real servers on loopback: what is good, what is not, and what says nothing."""

import asyncio
import datetime
import multiprocessing
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lb.health.dial import Dialer, Way
from lb.health.probes import Outcome, ask
from lb.health.target import Target, targets
from lb.model import Service
from lb.model.health import HealthCheck

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"
MANY_A = b"HTTP/1.0 200 OK\r\n\r\n" + b"a" * 60_000 + b"b"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def target(kind: str, port: int, **check: Any) -> Target:
    """A check of 127.0.0.1, directly."""
    own = {} if kind == "command" else {"port": port, "via": "direct"}
    wanted = HealthCheck.model_validate({"type": kind, "timeout_seconds": 5, **own, **check})
    return Target("web", ip_address("127.0.0.1"), ip_address("192.0.2.1"), port, wanted, "ipip")


def answering(answer: bytes, asked: list[bytes] | None = None) -> Handler:
    """A server that reads one request and says this."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        writer.write(answer)
        writer.close()

    return handle


@asynccontextmanager
async def tcp_server(handle: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback; its port."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextmanager
def udp_server(answer: Callable[[bytes], bytes], first: bytes | None = None) -> Iterator[int]:
    """A server of datagrams in the running loop; its port. first: what it says to everybody before its answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)

        def on_datagram() -> None:
            data, client = server.recvfrom(65535)
            if first is not None:
                server.sendto(first, client)
            server.sendto(answer(data), client)

        asyncio.get_running_loop().add_reader(server, on_datagram)
        yield server.getsockname()[1]
        asyncio.get_running_loop().remove_reader(server)


def free_port(kind: socket.SocketKind) -> int:
    """A port that nobody has."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def http(answer: bytes, **check: Any) -> Outcome:
    """What a check finds of a server that says this."""
    async with tcp_server(answering(answer)) as port:
        return await ask(target("http", port, **check), Dialer())


def test_tcp() -> None:
    """A connection is enough; a refused one is a bad check, and says so."""

    async def run() -> tuple[Outcome, Outcome]:
        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with tcp_server(handle) as port:
            good = await ask(target("tcp", port), Dialer())
        return good, await ask(target("tcp", free_port(socket.SOCK_STREAM)), Dialer())

    good, bad = asyncio.run(run())
    assert (good.ok, good.why) == (True, None)
    assert bad.ok is False
    assert bad.why is not None
    assert bad.why.endswith(": connection refused")


def test_server_that_says_nothing() -> None:
    """No answer in time is a bad check."""

    async def run() -> Outcome:
        async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()

        async with tcp_server(handle) as port:
            return await ask(target("http", port, timeout_seconds=0.2), Dialer())

    outcome = asyncio.run(run())
    # Where the machine was too busy to look in time nothing is known; it is never good.
    assert outcome.ok is not True
    assert outcome.why


@pytest.mark.parametrize(
    ("answer", "check", "why"),
    [
        (OK, {}, None),
        (OK, {"body": "read"}, None),
        (OK, {"body_regex": "^r[ae]+dy$"}, None),
        (b"HTTP/1.0 200 OK\r\n\r\nready\n", {"body_regex": "^ready$"}, None),
        # Whoever goes back over what it has read takes longer than the universe has lasted.
        (MANY_A, {"body_regex": "^(a|aa)+$"}, 'nothing in its answer matches "^(a|aa)+$"'),
        (OK, {"body": "steady"}, 'its answer does not hold "steady"'),
        (OK, {"body_regex": "^eady"}, 'nothing in its answer matches "^eady"'),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, {"body": "ready"}, None),
        (b"HTTP/1.0 200 OK\r\n\r\nno length", {"body": "no length"}, None),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrea\r\n2\r\ndy\r\n0\r\n\r\n",
            {"body": "ready"},
            None,
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            {"body": "ready"},
            'its answer does not hold "ready"',
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", {"method": "HEAD"}, None),
        (
            b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            {},
            "it answers with status 503, but 200-299 is wanted",
        ),
        (b"HTTP/1.1 301 Gone\r\nContent-Length: 0\r\n\r\n", {"status": "200-299,301"}, None),
        (b"", {}, "it does not answer in HTTP: "),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", {}, "it does not answer in HTTP: "),
    ],
)
def test_http(answer: bytes, check: dict[str, Any], why: str | None) -> None:
    """Status and body decide, whichever way the answer is framed."""
    outcome = asyncio.run(http(answer, **check))

    assert outcome.ok is (why is None), outcome
    assert (outcome.why or "").startswith(why or "")


def test_http_request() -> None:
    """What is asked: method, path and host as given, else GET / of the VIP."""
    asked: list[bytes] = []

    async def run() -> None:
        async with tcp_server(answering(OK, asked)) as port:
            await ask(target("http", port), Dialer())
            check = {"path": "/healthz?deep=1", "method": "POST", "host": "www.example.com"}
            await ask(target("http", port, **check), Dialer())

    asyncio.run(run())
    first, second = (request.decode().split("\r\n") for request in asked)
    assert first[0] == "GET / HTTP/1.1"
    assert any(line.startswith("Host: 192.0.2.1:") for line in first)
    assert second[0] == "POST /healthz?deep=1 HTTP/1.1"
    assert "Host: www.example.com" in second


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS with a certificate of its own signing, and the file of it."""
    key, today = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, file


def test_https(tmp_path: Path) -> None:
    """Unless told to, certificates are not looked at; told to, signer and name must be right; SNI is sent."""
    context, file = certificate(tmp_path, "www.example.com")
    names: list[str | None] = []

    def note(_socket: object, name: str | None, _context: object) -> None:
        names.append(name)

    context.sni_callback = note

    async def run(**check: Any) -> Outcome:
        async with tcp_server(answering(OK), context) as port:
            return await ask(target("https", port, **check), Dialer())

    def found(**check: Any) -> tuple[bool | None, str]:
        outcome = asyncio.run(run(**check))
        return outcome.ok, outcome.why or ""

    assert found(server_name="www.example.com", body="ready") == (True, "")
    for host in ("www.example.com:8443", "[2001:db8::1]:8443", "2001:db8::1"):
        assert found(host=host) == (True, "")
    assert names == ["www.example.com", "www.example.com", None, None]  # of an address no name is sent
    right = {"verify": True, "ca_file": str(file), "server_name": "www.example.com"}
    assert found(**right) == (True, "")
    ok, why = found(**right | {"server_name": "other.example.com"})
    assert (ok, "certificate is not valid" in why, "other.example.com" in why) == (False, True, True)
    ok, why = found(verify=True, server_name="www.example.com")
    assert (ok, "self-signed" in why) == (False, True)
    ok, why = found(**right | {"ca_file": str(tmp_path / "none.pem")})
    assert (ok, "cannot be read" in why) == (None, True)


def test_https_of_a_server_without_tls() -> None:
    """A plain server is a bad check, and its reason says TLS."""

    async def run() -> Outcome:
        async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example.com ready\r\n")
            writer.close()

        async with tcp_server(handle) as port:
            return await ask(target("https", port), Dialer())

    outcome = asyncio.run(run())
    assert outcome.ok is False
    assert "TLS" in (outcome.why or "")


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        ({"request": "ping"}, True),
        ({"request": "ping", "reply": "PIN"}, True),
        ({"request": "hex:70696e67", "reply": "hex:50494e47"}, True),
        ({"request": "ping", "reply": "pong"}, False),
    ],
)
def test_udp(check: dict[str, Any], ok: bool) -> None:
    """An answer that begins as wanted is good; text and hexadecimal are the same bytes."""

    async def run() -> Outcome:
        with udp_server(bytes.upper) as port:
            return await ask(target("udp", port, **check), Dialer())

    outcome = asyncio.run(run())
    assert outcome.ok is ok, outcome
    assert outcome.why == (None if ok else 'it answers "PING", but "pong" is wanted')


def test_udp_port_without_a_server() -> None:
    """The ICMP answer of a port that nobody has is a bad check at once, not after the timeout."""
    port = free_port(socket.SOCK_DGRAM)
    outcome = asyncio.run(ask(target("udp", port, request="x", timeout_seconds=5), Dialer()))

    assert outcome.ok is False
    assert "connection refused" in (outcome.why or "")


@pytest.mark.parametrize(
    ("rcode", "wanted", "ok"),
    [("NOERROR", "NOERROR", True), ("SERVFAIL", "NOERROR", False), ("NXDOMAIN", "NXDOMAIN", True)],
)
def test_dns(rcode: str, wanted: str, ok: bool) -> None:
    """The response code decides; an answer to another question is passed over."""
    asked = []

    async def run() -> Outcome:
        def answer(data: bytes) -> bytes:
            query = dns.message.from_wire(data)
            asked.append(query.question[0].to_text())
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.from_text(rcode))
            return response.to_wire()

        foreign = dns.message.make_response(dns.message.make_query("other.example.com", "AAAA"))
        foreign.set_rcode(dns.rcode.REFUSED)
        with udp_server(answer, foreign.to_wire()) as port:
            check = {"dns_name": "www.example.com", "dns_type": "AAAA", "dns_rcode": wanted}
            return await ask(target("dns", port, **check), Dialer())

    outcome = asyncio.run(run())
    assert asked == ["www.example.com. IN AAAA"]
    assert outcome.ok is ok, outcome
    assert outcome.why == (None if ok else f"it answers {rcode}, but {wanted} is wanted")


def test_dns_answer_that_is_none() -> None:
    """Bytes that are no DNS are a bad check."""

    async def run() -> Outcome:
        with udp_server(lambda _: b"\xff") as port:
            return await ask(target("dns", port, dns_name="example.com"), Dialer())

    outcome = asyncio.run(run())
    assert outcome.ok is False
    assert "does not answer in DNS" in (outcome.why or "")


@pytest.mark.parametrize(
    ("command", "ok", "why"),
    [
        (["/bin/sh", "-c", 'test "$SLUICE_BACKEND $SLUICE_VIP $SLUICE_SERVICE" = "127.0.0.1 192.0.2.1 web"'],
         True, None),
        (["/bin/sh", "-c", "echo it is late >&2; exit 3"], False, "exit code 3: it is late"),
        (["/bin/sh", "-c", "kill -9 $$"], False, "exit code -9"),
        (["/nonexistent/check"], None, "the command cannot be run: "),
        (["/bin/echo", "$(exit 1); exit 1"], True, None),
        (["/bin/sh", "-c", "grep -q '^CapEff:.0*$' /proc/self/status"], True, None),
    ],
)  # fmt: skip
def test_command(command: list[str], ok: bool | None, why: str | None) -> None:
    """Exit code 0 is good; what it is about is in its environment; no shell reads it, and it has no capability."""
    outcome = asyncio.run(ask(target("command", 80, command=command), Dialer()))

    assert outcome.ok is ok, outcome
    assert (outcome.why or "").startswith(why or "")


def test_command_that_does_not_end() -> None:
    """It is killed when its time is over, and what it has started too."""
    words = ["/bin/sh", "-c", "sleep 600 & wait"]
    check = {"command": words, "timeout_seconds": 0.5}

    async def run() -> Outcome:
        return await ask(target("command", 80, **check), Dialer())

    outcome = asyncio.run(asyncio.wait_for(run(), 60))
    assert outcome.ok is not True
    assert outcome.seconds < 60


def ask_command(port: int) -> None:
    """A check that connects to that port, and does not end."""
    words = ["/bin/bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{port}; exec sleep 600"]
    asyncio.run(ask(target("command", 80, command=words, interval_seconds=600, timeout_seconds=60), Dialer()))


def test_command_ends_with_the_daemon() -> None:
    """Also where that is killed, and can end nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        daemon = multiprocessing.get_context("spawn").Process(
            target=ask_command, args=(server.getsockname()[1],)
        )
        daemon.start()
        command, _ = server.accept()
        with command:
            daemon.kill()
            daemon.join()
            command.settimeout(60)
            assert command.recv(1) == b""


class NoMark:
    """A way that nobody can go: the source is not ours."""

    def way(self, service: str, backend: bytes, family: int) -> Way:
        return Way(mark=1, source="192.0.2.99")


def test_what_is_our_own_fault_says_nothing() -> None:
    """Without a data path, or with one that cannot be used, a backend is not judged."""
    check = target("tcp", 80, via="data-path")
    outcomes = [asyncio.run(ask(check, dialer)) for dialer in (Dialer(), Dialer(NoMark()))]

    assert [outcome.ok for outcome in outcomes] == [None, None]
    assert outcomes[0].why == "there is no data path to check through: set via to direct"


def test_targets() -> None:
    """Disabled backends are left alone; the port is the check's or the service's; of a prefix, an address."""
    document = {"name": "web", "vip": "2001:db8:1::/64", "port": 80, "protocol": "tcp", "mode": "gue"}
    states = ("enabled", "draining", "disabled")
    backends = [{"address": f"10.0.0.{n}", "admin_state": state} for n, state in enumerate(states, 1)]
    check = {"type": "http", "port": 8080}
    services = [
        Service.model_validate({**document, "backends": backends, "health_check": health_check})
        for health_check in (None, check)
    ]
    found = list(targets(services))

    assert [str(one.backend) for one in found] == ["10.0.0.1", "10.0.0.2"]
    assert {(str(one.vip), one.port, one.is_direct) for one in found} == {("2001:db8:1::1", 8080, False)}
    assert HealthCheck.model_validate({"type": "tcp"}).is_direct("nat")
    assert not HealthCheck.model_validate({"type": "tcp"}).is_direct("l2")
