"""HTTP exchanges with the daemon, over its unix socket or over http(s).

http.client and not httpx: importing httpx takes 100 ms, which is more than all else a command does.
"""

import contextlib
import http.client
import json
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

from lb.cli.credentials import Credentials, CredentialsError
from lb.errors import SluiceError

TIMEOUT_SECONDS = 60.0
"""Per send or receive: a healthy daemon is silent for seconds while it compiles or takes an import."""
YAML = "application/yaml"
_NONE = Credentials()
LINES_MAX = 20
"""Error lines printed of one problem document."""
NO_ERROR = 300
"""The first HTTP status that is no success."""
_EXIT_CODES = {404: 3, 409: 4, 412: 4}
_BLOCK_BYTES = 1 << 18
_CONTENT_TYPE = "Content-Type"
CALLER_HEADER = "Sluice-Caller-Address"
"""Tells the daemon where this session comes from, so that it is not cut off by what it asks for."""
WARNING_HEADER = "Sluice-Warning"


class UnreachableError(SluiceError):
    """Raised when no answer was had from the daemon: exit code 5."""

    exit_code = 5


class RefusedError(SluiceError):
    """Raised when the daemon answered with an error; lines holds one sentence a fault."""

    def __init__(self, status: int, lines: list[str]) -> None:
        self.status = status
        self.lines = lines
        self.exit_code = _EXIT_CODES.get(status, 1)
        super().__init__("\n".join(lines))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered: document is the decoded JSON, the text of YAML, None without a body.

    warnings: a sentence each, of what was done all the same.
    """

    status: int
    document: Any
    warnings: tuple[str, ...] = ()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS, blocksize=_BLOCK_BYTES)
        self._path = path

    def connect(self) -> None:
        """Open the socket at the path; OSError as the kernel says."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """One connection to one daemon, kept open between requests. server is a URL: unix://PATH, http:// or https://."""

    def __init__(self, server: str, credentials: Credentials = _NONE) -> None:
        self._server = server
        parts = urlsplit(server)
        self._prefix = ""
        self._connection: http.client.HTTPConnection
        self._is_local = parts.scheme == "unix" or parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if parts.scheme == "unix":
            self._connection = _UnixConnection(parts.path)
        else:
            where = (parts.hostname or "", parts.port)
            if parts.scheme == "https":
                self._connection = http.client.HTTPSConnection(
                    *where, timeout=TIMEOUT_SECONDS, blocksize=_BLOCK_BYTES, context=credentials.context()
                )
            else:
                self._connection = http.client.HTTPConnection(
                    *where, timeout=TIMEOUT_SECONDS, blocksize=_BLOCK_BYTES
                )
            self._prefix = parts.path.rstrip("/")
        token = credentials.token()
        if token is not None and parts.scheme == "http" and not self._is_local:
            raise CredentialsError(f"a token is not sent to {server} in the clear: give an https:// --server")
        self._always = {"User-Agent": "sluice"} | (
            {} if token is None else {"Authorization": f"Bearer {token}"}
        )

    def patience(self, seconds: float) -> None:
        """Wait no longer than that for each send and receive."""
        self._connection.timeout = seconds

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        stream: BinaryIO | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, its answer decoded.

        path is below /v1 and already quoted; a query value of None is left out; body is sent as JSON,
        stream as it is, in pieces. RefusedError: the daemon said no; UnreachableError: it said nothing.
        """
        said = {k: v for k, v in (query or {}).items() if v is not None}
        target = f"{self._prefix}/v1{path}" + (f"?{urlencode(said, doseq=True)}" if said else "")
        sent = {"Accept": accept, **self._always, **self._caller(method), **(headers or {})}
        payload: bytes | BinaryIO | None = stream
        if stream is not None:
            sent |= {_CONTENT_TYPE: content_type, **_length(stream)}
        elif body is not None:
            payload = json.dumps(body).encode()
            sent[_CONTENT_TYPE] = content_type
        try:
            raw, status, kind, warnings = self._exchange(method, target, payload, sent)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise UnreachableError(self._why(error)) from error
        return Answer(status, self._decoded(status, kind, raw), warnings)

    def copy(self, path: str, query: Mapping[str, str | None], to: BinaryIO) -> None:
        """GET a long text, and write it as it comes; errors as from call."""
        said = {k: v for k, v in query.items() if v is not None}
        target = f"{self._prefix}/v1{path}?{urlencode(said)}"
        try:
            if self._connection.sock is None:
                self._connection.connect()
            self._connection.request("GET", target, headers=self._always)
            with self._connection.getresponse() as response:
                if response.status >= NO_ERROR:
                    raw, status, kind, _ = _read(response)
                    self._decoded(status, kind, raw)
                while some := response.read(_BLOCK_BYTES):
                    to.write(some)
        except http.client.HTTPException as error:
            self.close()
            raise UnreachableError(self._why(error)) from error

    def _caller(self, method: str) -> dict[str, str]:
        if method == "GET" or not self._is_local:
            return {}
        from lb.cli.caller import caller_address

        address = caller_address()
        return {} if address is None else {CALLER_HEADER: address}

    @contextlib.contextmanager
    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Iterator[str]]:
        """The lines of an answer that goes on, as they come; a list in the query is a parameter given several times.

        RefusedError, UnreachableError: as from call, when the answer begins; UnreachableError: it broke off.
        """
        said = {k: v for k, v in (query or {}).items() if v is not None}
        target = f"{self._prefix}/v1{path}" + (f"?{urlencode(said, doseq=True)}" if said else "")
        connection = self._connection
        try:
            if connection.sock is None:
                connection.connect()
            connection.request("GET", target, headers={**self._always, **(headers or {})})
            response = connection.getresponse()
            if response.status >= NO_ERROR:
                raw, status, kind, _ = _read(response)
                self._decoded(status, kind, raw)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise UnreachableError(self._why(error)) from error
        try:
            yield self._lines(response)
        finally:
            self.close()  # the rest of the answer is on its way

    def _lines(self, response: http.client.HTTPResponse) -> Iterator[str]:
        while True:
            try:
                line = response.readline()
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(f"{self._server} broke off its answer; ask again") from error
            if not line:
                return
            yield line.decode().rstrip("\r\n")

    def _exchange(
        self, method: str, target: str, payload: bytes | BinaryIO | None, headers: Mapping[str, str]
    ) -> tuple[bytes, int, str, tuple[str, ...]]:
        connection = self._connection
        if connection.sock is None:
            connection.connect()
        try:
            connection.request(method, target, payload, headers)
        except (BrokenPipeError, ConnectionResetError):
            # The daemon may refuse a body (too large) before it has read it all: its answer is then waiting.
            if payload is None:
                raise
            with contextlib.closing(connection), connection.response_class(connection.sock) as response:
                response.begin()
                return _read(response)
        with connection.getresponse() as response:
            return _read(response)

    def _decoded(self, status: int, kind: str, raw: bytes) -> Any:
        document: Any = None
        if kind == YAML and status < NO_ERROR:
            return raw.decode()
        if raw:
            with contextlib.suppress(ValueError):
                document = json.loads(raw) if kind.endswith("json") else None
        if status >= NO_ERROR:
            raise RefusedError(status, problem_lines(status, document))
        if raw and document is None:
            raise UnreachableError(
                f"{self._server} answers, but is not a Sluice daemon; give the right --server"
            )
        return document

    def _why(self, error: Exception) -> str:
        path = self._server.removeprefix("unix://")
        if isinstance(error, PermissionError):
            return f"{path} may not be opened by this user; use sudo, or a user of the socket's group"
        if isinstance(error, TimeoutError):
            return f"{self._server} did not answer in {TIMEOUT_SECONDS:.0f} s; look at the daemon's log"
        if isinstance(error, FileNotFoundError):
            return f'there is no socket {path}; start the daemon with "sluice serve", or give --server'
        if isinstance(error, ConnectionRefusedError):
            return f'nothing listens on {path}; start the daemon with "sluice serve", or give --server'
        if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
            return f'{self._server} closed the connection; "sluice revisions" shows whether a change was made'
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{self._server} cannot be reached ({said}); check --server and that the daemon runs"


def _read(response: http.client.HTTPResponse) -> tuple[bytes, int, str, tuple[str, ...]]:
    warnings = tuple(response.headers.get_all(WARNING_HEADER, ()))
    return response.read(), response.status, response.headers.get_content_type(), warnings


def _length(stream: BinaryIO) -> dict[str, str]:
    """Content-Length for a plain file, so that too large a one is refused at once; none for a pipe."""
    try:
        status = os.fstat(stream.fileno())
        rest = status.st_size - stream.tell()
    except (OSError, ValueError):
        return {}
    return {"Content-Length": str(rest)} if stat.S_ISREG(status.st_mode) else {}


def quoted(segment: str) -> str:
    """One path segment, a prefix's slash and colons included."""
    return quote(segment, safe="")


def problem_lines(status: int, problem: object) -> list[str]:
    """The sentences of a problem document (RFC 9457), each fault with its line or field."""
    if not isinstance(problem, dict):
        return [f"the server answered {status} and no reason; check --server"]
    errors = [e for e in problem.get("errors") or [] if isinstance(e, dict)]
    if not errors:
        return [str(problem.get("detail") or problem.get("title") or f"the server answered {status}")]
    lines = []
    for error in errors[:LINES_MAX]:
        places = [error.get("parameter") or error.get("pointer") or ""]
        if error.get("line") is not None:
            places.insert(0, f"line {error['line']}")
        where = ", ".join(filter(None, places))
        detail = str(error.get("detail", ""))
        # What is wrong with a parameter begins with its name by itself.
        lines.append(f"{where}: {detail}" if where and not detail.startswith(f"{where}: ") else detail)
    if len(errors) > LINES_MAX:
        lines[-1] += f" (and {len(errors) - LINES_MAX} more)"
    return lines
