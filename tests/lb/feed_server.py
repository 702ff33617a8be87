"""A small HTTP server on loopback that answers what a test tells it to, and remembers what it was asked."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = BaseHTTPRequestHandler


@dataclass(frozen=True)
class Page:
    """An answer. length: what is claimed, where it is not the truth. A header ETag makes conditional answers."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None

    def __call__(self, handler: Handler) -> None:
        """Send it, or a 304."""
        etag = self.headers.get("ETag")
        if etag is not None and handler.headers.get("If-None-Match") == etag:
            handler.send_response(304)
            handler.end_headers()
            return
        handler.send_response(self.status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(self.body) if self.length is None else self.length))
        handler.end_headers()
        handler.wfile.write(self.body)


class FeedServer:
    """pages: what is answered at each path; asked: (path with query, headers) of every request."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pages: dict[str, Callable[[Handler], None]] = {}
        self.asked: list[tuple[str, Mapping[str, str]]] = []
        self.closing = threading.Event()

    def url(self, path: str = "/list") -> str:
        """Where that path is."""
        return f"http://127.0.0.1:{self.port}{path}"

    def put(self, body: bytes, path: str = "/list", **more: Any) -> None:
        """Answer this from now on."""
        self.pages[path] = Page(body, **more)


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[FeedServer]:
    """A running server; at the end its requests are over too."""
    server: FeedServer

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.path, dict(self.headers)))
            page = server.pages.get(self.path.partition("?")[0], Page(status=404))
            self.close_connection = True
            with contextlib.suppress(ConnectionError):  # the client has seen enough
                page(self)

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A handshake that fails is the client's to report."""

    with Quiet(("127.0.0.1", 0), Answering) as listener:
        if tls is not None:
            listener.socket = tls.wrap_socket(listener.socket, server_side=True)
        server = FeedServer(listener.server_address[1])
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            listener.shutdown()
            thread.join()
