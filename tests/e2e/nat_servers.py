"""What stands behind mode nat, on every backend: nginx with TLS, HTTP/2 and WebSockets; QUIC; iperf3."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import string
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TextIO

import inside
import quic_hosts
from place import Lab
from topology import Host, Role
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

TLS, QUIC, IPERF, WEBSOCKET = 8443, 4433, 5201, 9001
NAME = "lab"
"""Whose certificate it is."""
_NGINX = string.Template("""
user nobody nogroup;
worker_processes 1;
pid $run/nginx.pid;
error_log $run/nginx.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path $run/body;
    proxy_temp_path $run/proxy;
    fastcgi_temp_path $run/fastcgi;
    uwsgi_temp_path $run/uwsgi;
    scgi_temp_path $run/scgi;
    server {
        listen $port ssl http2;
        listen [::]:$port ssl http2;
        ssl_certificate $chain;
        ssl_certificate_key $key;
        location = /100m { alias $big_file; }
        location /upload/ { alias $run/uploads/; dav_methods PUT; }
        location = /socket {
            proxy_pass http://127.0.0.1:$websocket;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $$http_upgrade;
            proxy_set_header Connection upgrade;
        }
    }
}
""")


def hosts(lab: Lab) -> tuple[Host, ...]:
    return lab.configuration.of_role(Role.BACKEND)


def uploads(lab: Lab, host: Host) -> Path:
    """Where this backend keeps what is sent to it over TLS."""
    return lab.data / f"{host.label}-tls" / "uploads"


@contextlib.contextmanager
def processes(lab: Lab, certificate: tuple[Path, Path]) -> Iterator[TextIO]:
    """nginx and iperf3, which listen when this is entered, and are gone when it is left.

    Gives what all of iperf3's servers say: each takes one test at a time, and says when it listens again.
    """
    with contextlib.ExitStack() as stack:
        ends = os.pipe()
        said, write = stack.enter_context(os.fdopen(ends[0])), stack.enter_context(os.fdopen(ends[1], "w"))
        for host in hosts(lab):
            namespace, run = lab.namespace(Role.BACKEND, host.number), uploads(lab, host).parent
            uploads(lab, host).mkdir(parents=True, exist_ok=True)
            shutil.chown(uploads(lab, host), "nobody")
            _nginx(stack, namespace, run, lab.data / "100m", certificate)
            words = inside.command(namespace, ["iperf3", "--server", "--forceflush"])
            iperf = stack.enter_context(subprocess.Popen(words, stdout=write))
            stack.callback(iperf.terminate)
        write.close()
        for _ in hosts(lab):
            listens(said)
        yield said


def listens(said: TextIO) -> None:
    """Returns once one more of iperf3's servers is ready for a test."""
    while "Server listening" not in (line := said.readline()):
        assert line, "iperf3 has ended"


def _nginx(
    stack: contextlib.ExitStack, namespace: str, run: Path, big_file: Path, certificate: tuple[Path, Path]
) -> None:
    chain, key = certificate
    settings = run / "nginx.conf"
    settings.write_text(
        _NGINX.substitute(run=run, port=TLS, websocket=WEBSOCKET, chain=chain, key=key, big_file=big_file)
    )
    words = inside.command(namespace, ["nginx", "-c", str(settings)])
    subprocess.run(words, check=True)  # returns once it listens
    stack.callback(subprocess.run, [*words, "-s", "stop"], check=True)


@contextlib.asynccontextmanager
async def coroutines(lab: Lab, certificate: tuple[Path, Path]) -> AsyncIterator[None]:
    """Servers of QUIC and, behind nginx, of WebSockets: each names its host."""
    async with contextlib.AsyncExitStack() as stack:
        for number, host in enumerate(hosts(lab), 1):
            namespace = lab.namespace(Role.BACKEND, host.number)
            for address in map(host.address, (4, 6)):
                place = (address, QUIC)
                await stack.enter_async_context(
                    quic_hosts.serving(namespace, host.label, place, certificate, form=1, number=number)
                )
            listening = inside.call(namespace, lambda: socket.create_server(("127.0.0.1", WEBSOCKET)))
            await stack.enter_async_context(serve(_echo, sock=listening, max_size=None))
        yield


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def echoed(lab: Lab, vip: str, certificate: Path, messages: list[bytes]) -> list[bytes]:
    """What comes back by one WebSocket over TLS, through nginx, from a client in the lab."""
    namespace = lab.namespace(Role.CLIENT, 1)
    opened = await asyncio.to_thread(inside.call, namespace, lambda: socket.create_connection((vip, 443)))
    trust = ssl.create_default_context(cafile=certificate)
    answers = []
    async with connect(f"wss://{NAME}/socket", sock=opened, ssl=trust, max_size=None) as connection:
        for message in messages:
            await connection.send(message)
            answer = await connection.recv()
            assert isinstance(answer, bytes)
            answers.append(answer)
    return answers


async def named(lab: Lab, source: str, vip: str, connections: int) -> list[str | None]:
    """Who answers on as many QUIC connections at once."""
    namespace = lab.namespace(Role.CLIENT, 1)
    journeys = (
        quic_hosts.journey(quic_hosts.Client(namespace, 30.0), (vip, 443), [(source, 0)])
        for _ in range(connections)
    )
    return [answer for answers in await asyncio.gather(*journeys) for answer in answers]
