"""A backend's UDP server: answers each datagram with its own name, a newline, and the datagram.

The answer comes from the very address that was asked, which may be any VIP: IP_PKTINFO carries it both ways.

    echo.py NAME PORT…
"""

import selectors
import socket
import struct
import sys

IP_PKTINFO = 8  # Python 3.11 does not name it, nor the next
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER = 4 << 20
LARGEST_DATAGRAM = 65535


def open_socket(family: socket.AddressFamily, port: int) -> socket.socket:
    """A socket on all addresses of a family that tells which one a datagram was for. OSError."""
    server = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
    server.bind(("", port))
    server.setblocking(False)
    return server


def source_of_answer(level: int, kind: int, data: bytes) -> tuple[int, int, bytes] | None:
    """The control message that makes an answer leave from where its question went; None for others."""
    if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
        # struct in_pktinfo: interface, address to send from, address in the header. Any interface will do.
        _, _, asked = struct.unpack("=I4s4s", data)
        return level, kind, struct.pack("=I4s4s", 0, asked, bytes(4))
    if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
        asked, _ = struct.unpack("=16sI", data)
        return level, kind, struct.pack("=16sI", asked, 0)
    return None


def answer_all(server: socket.socket, name: bytes) -> None:
    """Answer what waits in a socket."""
    while True:
        try:
            datagram, messages, _, client = server.recvmsg(LARGEST_DATAGRAM, socket.CMSG_SPACE(20))
        except BlockingIOError:
            return
        sources = [source for message in messages if (source := source_of_answer(*message))]
        try:
            server.sendmsg([name, b"\n", datagram], sources, 0, client)
        except OSError as error:  # one client out of reach must not end the service for all
            print(f"no answer to {client[0]}: {error}", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Serve until ended."""
    name, *ports = words
    selector = selectors.DefaultSelector()
    for port in ports:
        for family in (socket.AF_INET, socket.AF_INET6):
            selector.register(open_socket(family, int(port)), selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            answer_all(key.fileobj, name.encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
