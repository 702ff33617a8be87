"""The HTTP probe: one request, and whether status and body are as wanted. h11 speaks HTTP, ssl speaks TLS."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache

import h11

from lb import __version__
from lb.health.dial import Dialer, ProbeFailedError, UnableError
from lb.health.target import Target
from lb.model.health import CheckType, HealthCheck, compiled

BODY_MOST = 65536
_READ = 16384
_PORTS = {CheckType.HTTP: 80, CheckType.HTTPS: 443}
Send = Callable[[bytes], Awaitable[None]]
Receive = Callable[[], Awaitable[bytes]]


async def probe(target: Target, dialer: Dialer) -> None:
    """ProbeFailedError, UnableError; OSError of the socket."""
    loop = asyncio.get_running_loop()
    with dialer.open(target, socket.SOCK_STREAM) as client:
        if target.check.type is CheckType.HTTPS:
            await _over_tls(target, client)
            return
        await loop.sock_connect(client, (str(target.address), target.port))

        async def receive() -> bytes:
            return await loop.sock_recv(client, _READ)

        async def send(data: bytes) -> None:
            await loop.sock_sendall(client, data)

        await _ask(target, send, receive)


async def _over_tls(target: Target, client: socket.socket) -> None:
    loop, check = asyncio.get_running_loop(), target.check
    context = _context(check.verify, check.ca_file)
    await loop.sock_connect(client, (str(target.address), target.port))
    name = check.server_name or _name(check.host or "") or str(target.vip)
    try:
        reader, writer = await asyncio.open_connection(sock=client, ssl=context, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise ProbeFailedError(f"its certificate is not valid: {error.verify_message}") from error
    except (ssl.SSLError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise ProbeFailedError(f"it does not speak TLS as it should: {reason}") from error
    try:

        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        await _ask(target, send, lambda: reader.read(_READ))
    except ssl.SSLError as error:
        raise ProbeFailedError(f"TLS failed: {error.reason}") from error
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@lru_cache(maxsize=256)
def _context(verify: bool, ca_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise UnableError(f"ca_file {ca_file} cannot be read: {error}") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _ask(target: Target, send: Send, receive: Receive) -> None:
    check = target.check
    connection = h11.Connection(h11.CLIENT)
    host = check.host or _authority(target)
    headers = [
        ("Host", host),
        ("User-Agent", f"sluice/{__version__}"),
        ("Accept", "*/*"),
        ("Connection", "close"),
    ]
    request = h11.Request(method=str(check.method), target=check.path, headers=headers)
    await send((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await receive())
            elif isinstance(event, h11.Response):
                _look_at_status(event.status_code, check)
                if check.body is None and check.body_regex is None:
                    return
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) >= BODY_MOST:
                    break
            elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        raise ProbeFailedError(f"it does not answer in HTTP: {error}") from error
    await _look_at_body(bytes(body[:BODY_MOST]), check)


def _look_at_status(status: int, check: HealthCheck) -> None:
    if not any(low <= status <= high for low, high in check.statuses):
        raise ProbeFailedError(f"it answers with status {status}, but {check.status} is wanted")


async def _look_at_body(body: bytes, check: HealthCheck) -> None:
    if check.body is not None and check.body.encode() not in body:
        raise ProbeFailedError(f'its answer does not hold "{check.body}"')
    if check.body_regex is None:
        return
    # On a thread, for other checks go on meanwhile. As elsewhere, "$" is before a line break that ends the text, too.
    text = body.decode(errors="replace").removesuffix("\n")
    if not await asyncio.to_thread(compiled(check.body_regex).search, text):
        raise ProbeFailedError(f'nothing in its answer matches "{check.body_regex}"')


def _name(host: str) -> str:
    """A Host header without its port; an IPv6 address without its brackets, too."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]


def _authority(target: Target) -> str:
    name = f"[{target.vip}]" if target.vip.version == 6 else str(target.vip)
    return name if target.port == _PORTS[target.check.type] else f"{name}:{target.port}"
