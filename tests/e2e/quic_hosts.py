"""QUIC servers that write a number into their connection ids, and clients that move; all in one event loop.

Sockets belong to the namespace that they were made in, so one process plays every host.
"""

import asyncio
import contextlib
import datetime
import os
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import inside
from aioquic.asyncio import QuicConnectionProtocol
from aioquic.asyncio import server as aioquic_server
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Place = tuple[str, int]
"""Address and port."""
ALPN = ["sluice-test"]
ID_LENGTH = 8


def numbered_id(form: int, number: int) -> bytes:
    """A connection id as the balancer reads it; what the number leaves free is random."""
    width = {1: 16, 2: 24, 3: 32}[form]
    free = os.urandom(ID_LENGTH)
    if form == 1:  # two bits that say so, and the number behind them
        whole = int.from_bytes(free, "big") & (1 << 8 * ID_LENGTH - 2 - width) - 1
        return (whole | (1 << width | number) << 8 * ID_LENGTH - 2 - width).to_bytes(ID_LENGTH, "big")
    return bytes([form << 6 | free[0] >> 2]) + number.to_bytes(width // 8, "big") + free[1 + width // 8 :]


@dataclass
class ServerConfiguration(QuicConfiguration):
    """A server's, with the form and the number of its connection ids."""

    form: int = 1
    number: int = 0


class NumberedConnection(QuicConnection):
    """A server's connection, whose every id holds its server's number."""

    def __init__(self, *, configuration: ServerConfiguration, **more: Any) -> None:
        super().__init__(configuration=configuration, **more)
        self._host_cids[0].cid = self._next_id()
        self.host_cid = self._local_initial_source_connection_id = self._host_cids[0].cid

    def _next_id(self) -> bytes:
        configuration = cast(ServerConfiguration, self._configuration)
        return numbered_id(configuration.form, configuration.number)

    def _replenish_connection_ids(self) -> None:
        before = len(self._host_cids)
        super()._replenish_connection_ids()
        for fresh in self._host_cids[before:]:
            fresh.cid = self._next_id()


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for nobody in particular, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "certificate.pem", folder / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, private


def udp_socket(namespace: str, place: Place) -> socket.socket:
    """A socket of that namespace, bound to an address and port. OSError."""

    def make() -> socket.socket:
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind(place)
        made.setblocking(False)
        return made

    return inside.call(namespace, make)


@contextlib.asynccontextmanager
async def serving(
    namespace: str, name: str, place: Place, certificate: tuple[Path, Path], *, form: int, number: int
) -> AsyncIterator[None]:
    """A server in that namespace which answers every stream with its name. aioquic's server is patched already."""
    configuration = ServerConfiguration(
        is_client=False, alpn_protocols=ALPN, connection_id_length=ID_LENGTH, form=form, number=number
    )
    configuration.load_cert_chain(*certificate)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.write(name.encode())
        writer.write_eof()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(answer(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    _, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: aioquic_server.QuicServer(configuration=configuration, stream_handler=begin),
        sock=udp_socket(namespace, place),
    )
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@dataclass
class Client:
    """One connection, which may change the address and port it comes from."""

    namespace: str
    patience: float
    """Seconds to wait for an answer."""
    protocol: QuicConnectionProtocol = field(init=False)
    _transport: asyncio.DatagramTransport | None = None

    async def connect(self, source: Place, server: Place) -> None:
        """Shake hands. TimeoutError."""
        configuration = QuicConfiguration(is_client=True, alpn_protocols=ALPN, verify_mode=0)
        self.protocol = QuicConnectionProtocol(QuicConnection(configuration=configuration))
        await self.move(source)
        self.protocol.connect(server if ":" not in server[0] else (*server, 0, 0))
        async with asyncio.timeout(self.patience):
            await self.protocol.wait_connected()

    async def move(self, source: Place) -> None:
        """Send from here from now on; what comes for the place before is lost, as with a NAT that forgot."""
        before = self._transport
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self.protocol, sock=udp_socket(self.namespace, source)
        )
        if before:
            before.close()

    def use_another_id(self) -> None:
        """Go on with the next of the ids that the server gave out."""
        self.protocol.change_connection_id()

    async def ask(self) -> str | None:
        """The name of the server that the connection is with; None if no answer comes."""
        try:
            async with asyncio.timeout(self.patience):
                reader, writer = await self.protocol.create_stream()
                writer.write_eof()
                return (await reader.read()).decode()
        except TimeoutError:
            return None

    def close(self) -> None:
        """Say goodbye and let go of the socket."""
        self.protocol.close()
        if self._transport:
            self._transport.close()


async def journey(client: Client, server: Place, sources: Sequence[Place]) -> list[str | None]:
    """The answers of one connection from one place after another; it ends with the first that does not come."""
    try:
        await client.connect(sources[0], server)
        answers = [await client.ask()]
        for number, source in enumerate(sources[1:]):
            await client.move(source)
            if number % 2:
                client.use_another_id()
            answers.append(await client.ask())
            if answers[-1] is None:
                break
        return answers
    finally:
        client.close()
