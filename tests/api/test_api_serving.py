"""The real listeners: the unix socket's peers, TLS with tokens and client certificates, and connections that dawdle."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_guarded import Guarded, guarded_app
from authority import NOW, Authority
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from api.serving import protocol
from api.serving.server import ApiServer
from api.serving.sockets import Listening, admit, gone, listening
from api.serving.tls import Certificates, TlsFiles, context_of, keep_looking
from lb.errors import SetupError

NOBODY = 65534


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def pair(authority: Authority) -> tuple[Path, Path]:
    """The server's certificate and key, for 127.0.0.1."""
    return authority.issue("edge", x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost"))


@contextmanager
def served(
    daemon: Guarded, opened: list[Listening], certificates: Certificates | None = None
) -> Iterator[None]:
    """The daemon's API behind these sockets, until the end."""
    ready = threading.Event()
    server = ApiServer(daemon.app, opened, certificates, ready=ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def daemon() -> Iterator[Guarded]:
    with guarded_app() as daemon:
        daemon.clock.now = time.time()
        yield daemon


def address_of(opened: list[Listening]) -> str:
    return str(opened[1])


def verifying(authority: Authority, pair: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


def test_tokens_and_certificates_by_tls(
    daemon: Guarded, authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """TLS asks for a token or a certificate that the CA has signed; reloaded, both are those of the new files."""
    others = Authority(tmp_path, "others")
    alice = authority.issue("alice", x509.DNSName("alice.example.net"))
    stranger = others.issue("stranger")
    daemon.allow(certificates=[{"name": "DNS:alice.example.net", "role": "operator"}])
    files = TlsFiles(*pair, authority.file)
    certificates = Certificates(files)
    with (
        listening(tmp_path / "run" / "s.sock", None, "127.0.0.1:0", tls=True) as opened,
        served(daemon, opened, certificates),
    ):
        base = address_of(opened)
        assert base.startswith("https://127.0.0.1:")
        bearer = {"Authorization": f"Bearer {daemon.token('viewer')}"}
        with httpx.Client(base_url=base, verify=verifying(authority)) as client:
            assert client.get("/healthz").status_code == 200
            assert client.get("/v1/services").status_code == 401
            assert client.get("/v1/whoami", headers=bearer).json()["role"] == "viewer"
            standing = client  # its connection outlives the reload
            with httpx.Client(base_url=base, verify=verifying(authority, alice)) as known:
                assert known.get("/v1/whoami").json() == {
                    "name": "certificate DNS:alice.example.net",
                    "role": "operator",
                    "by": "certificate",
                    "expires_at": None,
                }
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{base}/v1/whoami", verify=verifying(authority, stranger))
            with pytest.raises(httpx.TransportError):
                httpx.get(base.replace("https", "http") + "/healthz")

            renewed = others.issue("edge", x509.IPAddress(ip_address("127.0.0.1")))
            shutil.copy(others.file, authority.file)
            assert renewed == pair
            certificates.reload()

            assert standing.get("/healthz").status_code == 200
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{base}/healthz", verify=verifying(Authority(tmp_path, "third")))
            assert httpx.get(f"{base}/healthz", verify=verifying(others)).status_code == 200
            refused = httpx.get(f"{base}/v1/whoami", verify=verifying(others, stranger))
            assert refused.status_code == 403
            with pytest.raises(httpx.TransportError):
                httpx.get(f"{base}/v1/whoami", verify=verifying(others, alice))

            pair[1].write_bytes(alice[1].read_bytes())
            with pytest.raises(SetupError, match="is not the key of"):
                certificates.reload()
            assert httpx.get(f"{base}/healthz", verify=verifying(others)).status_code == 200


def test_files_that_tls_cannot_be_made_of(
    authority: Authority, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Each time one sentence that names the file, what is wrong, and what to do."""
    certificate, key = pair
    other = authority.issue("other")
    over = authority.issue("over", begins=NOW - timedelta(days=9), days=-1)
    early = authority.issue("early", begins=NOW + timedelta(days=2))
    soon = authority.issue("soon", days=3)
    (tmp_path / "text").write_text("no PEM")
    (tmp_path / "text").chmod(0o600)
    encrypted = tmp_path / "encrypted.key"
    loaded: Any = serialization.load_pem_private_key(key.read_bytes(), None)
    encrypted.touch(mode=0o600)
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    def fault(certificate: Path | None, key: Path | None, ca: Path | None = None) -> str:
        with pytest.raises(SetupError) as raised:
            files = TlsFiles.of(certificate, key, ca)
            assert files is not None
            context_of(files, now=NOW)
        return str(raised.value)

    assert fault(None, key) == f"--tls-key {key} is without its certificate: also give --tls-cert"
    assert fault(certificate, None) == f"--tls-cert {certificate} is without its key: also give --tls-key"
    assert (
        fault(None, None, authority.file) == "--tls-client-ca needs TLS: also give --tls-cert and --tls-key"
    )
    assert fault(certificate, other[1]) == f"{other[1]} is not the key of {certificate}: give a matching pair"
    assert "the certificate in" in fault(*over) and "ended at" in fault(*over)
    assert "begins at" in fault(*early)
    assert fault(tmp_path / "no", key) == (
        f"--tls-cert {tmp_path / 'no'} cannot be read (No such file or directory): see who may read it"
    )
    assert "--tls-key" in fault(certificate, tmp_path / "no")
    assert "does not hold a certificate" in fault(tmp_path / "text", key)
    assert "cannot be used" in fault(certificate, tmp_path / "text")
    assert "is encrypted, and nobody can be asked" in fault(certificate, encrypted)
    assert "does not hold a certificate" in fault(certificate, key, tmp_path / "text")
    key.chmod(0o644)
    assert fault(certificate, key) == f"--tls-key {key} can be read by everyone: chmod o= {key}"
    key.chmod(0o640)
    told: list[str] = []
    context_of(TlsFiles(certificate, key), now=NOW, warn=told.append)
    assert told == []
    context_of(TlsFiles(*soon), now=NOW, warn=told.append)
    assert len(told) == 1 and "renew it, and send SIGHUP" in told[0]
    assert TlsFiles.of(None, None, None) is None


def test_a_daemon_that_runs_for_long_warns_too(authority: Authority) -> None:
    """What is in use is looked at again and again: it is told before it ends, and once it has; renewed, no more."""
    certificate, key = authority.issue("edge", days=30)
    told: list[str] = []
    certificates = Certificates(TlsFiles(certificate, key), warn=told.append)

    for days, count in ((10, 0), (20, 1), (31, 2)):
        certificates.look(NOW + timedelta(days=days))
        assert len(told) == count
    assert ("ends at" in told[0], "ended at" in told[1]) == (True, True)
    fresh = authority.issue("fresh", days=90)
    for old, new in zip((certificate, key), fresh, strict=True):
        old.write_bytes(new.read_bytes())
    certificates.reload()
    certificates.look(NOW + timedelta(days=31))
    assert len(told) == 2

    class LookedError(Exception):
        pass

    def look(_now: datetime) -> None:
        raise LookedError

    certificates.look = look  # type: ignore[method-assign]
    with pytest.raises(LookedError):
        asyncio.run(keep_looking(certificates, pause=0.0))


def test_addresses_that_are_not_served(tmp_path: Path) -> None:
    """In the clear only loopback is; TLS without an address is a mistake; a bad one is named."""
    path = tmp_path / "s.sock"
    for listen, tls, says in (
        ("0.0.0.0:0", False, "without TLS only loopback is served: give --tls-cert and --tls-key"),
        ("[::]:0", False, "without TLS only loopback is served"),
        ("192.0.2.1:0", True, "cannot listen on 192.0.2.1:0"),
        (None, True, "no address is given: also give --listen ADDRESS:PORT"),
    ):
        with pytest.raises(SetupError, match=says), listening(path, None, listen, tls=tls):
            pass
        assert not path.exists()


def test_the_socket_is_not_for_all(daemon: Guarded, tmp_path: Path) -> None:
    """From its first moment it is the owner's and the group's; once others have roles it is for all to ask."""
    path = tmp_path / "run" / "s.sock"
    with listening(path, None, None, tls=False) as opened:
        assert path.stat().st_mode & 0o777 == 0o660
        admit(path, everyone=True)
        assert path.stat().st_mode & 0o777 == 0o666
        admit(path, everyone=False)
        assert path.stat().st_mode & 0o777 == 0o660
        with served(daemon, opened), httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://sluice/v1/whoami").json() == {
                "name": f"uid {os.geteuid()}",
                "role": "admin",
                "by": "unix",
                "expires_at": None,
            }
            with (
                pytest.raises(SetupError, match="another sluice serves"),
                listening(path, None, None, tls=False),
            ):
                pass
            assert daemon.audit() == []
            client.put("http://sluice/v1/blocklist/192.0.2.1", json={}).raise_for_status()
            assert daemon.audit()[0].origin == f"unix socket, pid {os.getpid()}"
    assert not path.exists()


def test_a_daemon_that_is_still_starting_is_not_dead(tmp_path: Path) -> None:
    """Its sockets are refused to the next one though nobody answers there yet; what that one says leaves them alone."""
    path = tmp_path / "s.sock"
    with listening(path, None, "127.0.0.1:0", tls=False) as opened:
        port = opened[1].socket.getsockname()[1]
        for other, listen, says in (
            (path, None, "another sluice serves"),
            (tmp_path / "other.sock", f"127.0.0.1:{port}", f"cannot listen on .*:{port}"),
        ):
            with pytest.raises(SetupError, match=says), listening(other, None, listen, tls=False):
                pass
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


def test_a_socket_of_another_daemon_is_left(tmp_path: Path) -> None:
    """At its end a daemon removes its own socket, and nothing else at that path; a socket that is gone is reported."""
    path = tmp_path / "s.sock"
    with listening(path, None, None, tls=False):
        problem = gone(path)
        admit(path, everyone=True)
        assert problem() is None
        path.unlink()
        assert problem() == f"the socket {path} was removed, and nobody can connect to it: restart the daemon"
        path.write_text("another's")
        assert problem() is not None
    assert path.read_text() == "another's"


def test_only_a_socket_is_taken_away(tmp_path: Path) -> None:
    """What a killed daemon left is replaced; a file, or a link to one, is not touched, and the group must exist."""
    path = tmp_path / "s.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    with listening(path, str(os.getegid()), None, tls=False):
        pass
    path.write_text("mine")
    with (
        pytest.raises(SetupError, match="exists, and is not a socket"),
        listening(path, None, None, tls=False),
    ):
        pass
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(SetupError, match="is not a socket"), listening(link, None, None, tls=False):
        pass
    assert path.read_text() == "mine"
    with (
        pytest.raises(SetupError, match="there is no such group"),
        listening(tmp_path / "x", "no-such", None, tls=False),
    ):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process needs root to start")
def test_another_user_is_known_by_the_kernel(
    daemon: Guarded, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A real process of another user is told apart, supplementary groups included."""
    folder = Path(f"/tmp/sluice-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        path = folder / "s.sock"
        daemon.allow(unix=[{"group": 4242, "role": "viewer"}])
        with listening(path, None, None, tls=False) as opened, served(daemon, opened):
            admit(path, everyone=True)

            def ask(*groups: str) -> str:
                words = [
                    "setpriv",
                    f"--reuid={NOBODY}",
                    f"--regid={NOBODY}",
                    *groups,
                    "curl",
                    "-s",
                    "--unix-socket",
                ]
                url = "http://sluice/v1/whoami"
                return subprocess.run(
                    [*words, str(path), url], capture_output=True, text=True, check=True
                ).stdout

            assert f"uid {NOBODY} may not use this API" in ask("--clear-groups")
            assert '"role":"viewer"' in ask("--groups=4242")
    finally:
        shutil.rmtree(folder)


def test_who_dawdles_is_hung_up_on(daemon: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that does not come on, at first or between requests, ends its connection, and no other."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with listening(tmp_path / "s.sock", None, "127.0.0.1:0", tls=False) as opened, served(daemon, opened):
        place = opened[1].socket.getsockname()
        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "):
            with socket.create_connection(place, timeout=30) as slow:
                slow.sendall(begun)
                assert slow.recv(100) == b""
        with socket.create_connection(place, timeout=30) as second:
            second.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
            answer = b""
            while piece := second.recv(4096):
                answer += piece
            assert answer.count(b"HTTP/1.1 200") == 1
        with httpx.Client(base_url=address_of(opened)) as client:
            assert client.get("/v1/services").status_code == 200
            with contextlib.suppress(
                httpx.ReadError
            ):  # who is still sending may see the end before the answer
                assert client.get("/v1/services", headers={"X": "y" * 300_000}).status_code in (400, 431)


def test_a_body_that_does_not_come_on(
    daemon: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408, and nothing changes; root on the unix socket may take its time."""
    monkeypatch.setattr("api.access.control.SILENCE_SECONDS", 0.2)
    path = tmp_path / "s.sock"
    head = b"PUT /v1/blocklist/192.0.2.1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{"
    with listening(path, None, "127.0.0.1:0", tls=False) as opened, served(daemon, opened):
        with socket.create_connection(opened[1].socket.getsockname(), timeout=30) as slow:
            slow.sendall(head)
            assert slow.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert daemon.reconciler.desired.revision == 0
        if os.geteuid() == 0:
            with socket.socket(socket.AF_UNIX) as root, pytest.raises(TimeoutError):
                root.settimeout(0.5)
                root.connect(str(path))
                root.sendall(head)
                root.recv(4096)


def test_too_many_connections(daemon: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over TCP there is an end to them; the unix socket still answers."""
    monkeypatch.setattr(protocol, "CONNECTIONS_MAX", 3)
    path = tmp_path / "s.sock"
    with listening(path, None, "127.0.0.1:0", tls=False) as opened, served(daemon, opened):
        place = opened[1].socket.getsockname()
        many = [socket.create_connection(place, timeout=30) for _ in range(4)]
        try:
            with pytest.raises((ConnectionError, StopIteration)):
                many[3].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if many[3].recv(100) == b"":
                    raise StopIteration
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
                assert client.get("http://sluice/healthz").status_code == 200
        finally:
            for each in many:
                each.close()
