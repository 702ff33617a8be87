"""A TCP port on loopback that forwards to the daemon's unix socket, which browsers cannot open."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

CHUNK = 65536


async def serve(port: int, path: Path, opened: Callable[[], None]) -> None:
    """Lead each connection to the socket, until cancelled; calls back once it is open. OSError: the port is taken."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            there_reader, there_writer = await asyncio.open_unix_connection(path)
            with contextlib.closing(there_writer):
                ways = [
                    asyncio.ensure_future(_hand_on(reader, there_writer)),
                    asyncio.ensure_future(_hand_on(there_reader, writer)),
                ]
                _, open_still = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in open_still:
                    way.cancel()

    server = await asyncio.start_server(lead, "127.0.0.1", port)
    async with server:
        opened()
        await server.serve_forever()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
