"""How the bytes of a feed are had: from where, how many, for how long, and what is refused."""

import asyncio
import gzip
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from feed_server import FeedServer, Handler, serving

from lb.errors import FeedError
from lb.feeds import unpack
from lb.feeds.addresses import is_public
from lb.feeds.fetch import Fetched, Validators, fetch, read_file, read_key
from lb.feeds.unpack import MIB, Unpacker

LIST = b"203.0.113.0/24\n"
NAME = "lists.test"


@pytest.fixture
def server() -> Iterator[FeedServer]:
    """A server that has a list."""
    with serving() as server:
        server.put(LIST)
        yield server


def had(url: str, *, allow_private: bool = True, **more: Any) -> Fetched | None:
    """What is at a URL."""
    return asyncio.run(fetch(url, allow_private=allow_private, **more))


def refusal(url: str, **more: Any) -> str:
    """Why a URL is refused."""
    with pytest.raises(FeedError) as caught:
        had(url, **more)
    return str(caught.value)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to these addresses, another answer each time; the names that are asked for."""
    asked: list[str] = []
    real, left = socket.getaddrinfo, list(answers)

    def answer(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if not str(host).endswith(".test"):
            return real(host, port, *more, **named)
        asked.append(str(host))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in left.pop(0)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_bytes_and_validators(server: FeedServer) -> None:
    """What is there is had as it is, with what the server says of its version."""
    server.put(LIST, headers={"ETag": '"v1"', "Last-Modified": "Mon, 02 Mar 2026 10:00:00 GMT"})

    found = had(server.url())

    assert found == Fetched(LIST, Validators('"v1"', "Mon, 02 Mar 2026 10:00:00 GMT"))


def test_validators_are_sent_back(server: FeedServer) -> None:
    """What is held is named to the server, and a 304 means that it is the newest."""
    server.put(LIST, headers={"ETag": '"v1"'})

    assert had(server.url(), held=Validators('"v1"', "Mon, 02 Mar 2026 10:00:00 GMT")) is None

    (_, headers) = server.asked[0]
    assert headers["If-None-Match"] == '"v1"'
    assert headers["If-Modified-Since"] == "Mon, 02 Mar 2026 10:00:00 GMT"
    server.put(LIST, status=304)
    assert "answers 304" in refusal(server.url())


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {}])
def test_gzip_is_unpacked(server: FeedServer, headers: dict[str, str]) -> None:
    """Gzip of the transfer, and a .gz that comes as it is, are unpacked; several members are one list."""
    server.put(gzip.compress(LIST) + gzip.compress(LIST), headers=headers)

    found = had(server.url())

    assert found is not None and found.data == LIST * 2


def test_gz_that_is_sent_packed(server: FeedServer) -> None:
    """A .gz that was packed once more for the transfer is unpacked twice."""
    server.put(gzip.compress(gzip.compress(LIST)), headers={"Content-Encoding": "gzip"})

    found = had(server.url())

    assert found is not None and found.data == LIST


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ({"body": LIST, "length": 1000}, "cannot be read to its end"),
        ({"body": b"", "length": unpack.RAW_MAX + 1}, "over 64 MiB, the limit for a feed"),
        ({"body": gzip.compress(LIST)[:-9], "headers": {"Content-Encoding": "gzip"}}, "ends in the middle"),
        ({"body": LIST, "headers": {"Content-Encoding": "gzip"}}, "not the gzip it claims to be"),
        ({"body": LIST, "headers": {"Content-Encoding": "br"}}, 'encoding "br": only gzip'),
        ({"body": LIST, "status": 404}, "answers 404 Not Found: check the URL"),
        ({"body": LIST, "status": 206}, "answers 206"),
        ({"body": b"", "status": 302, "headers": {"Location": "/list"}}, "more than 5 redirects"),
        ({"body": b"", "status": 302, "headers": {"Location": "file:///etc/passwd"}}, "is not followed"),
        ({"body": b"", "status": 302, "headers": {"Location": "http://u:p@127.0.0.1/"}}, "is not followed"),
    ],
)
def test_what_is_no_whole_answer_is_refused(server: FeedServer, page: dict[str, Any], words: str) -> None:
    """Half an answer, too long a one, a broken one, or none: each is refused with its reason."""
    server.put(**page)

    assert words in refusal(server.url())


def test_bomb_is_refused_while_it_streams(server: FeedServer) -> None:
    """A few hundred KiB that unpack to 300 MiB are refused at 256 MiB."""
    server.put(gzip.compress(bytes(300 * MIB), 6), headers={"Content-Encoding": "gzip"})

    assert "over 256 MiB unpacked" in refusal(server.url())


def test_endless_body_is_refused_while_it_streams(server: FeedServer) -> None:
    """A body that announces no length is read up to the limit and no further."""
    sent = 0

    def endless(handler: Handler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.end_headers()
        while not server.closing.is_set():
            handler.wfile.write(bytes(MIB))
            sent += 1

    server.pages["/list"] = endless

    assert "over 64 MiB" in refusal(server.url())
    assert sent < 80


def test_time_is_limited_in_all(server: FeedServer) -> None:
    """A server that sends a byte now and then, and never ends, is given up."""

    def dripping(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not server.closing.wait(0.01):
            handler.wfile.write(b"#")

    server.pages["/list"] = dripping

    assert "took over 0 s" in refusal(server.url(), seconds=0.3)


def test_redirects_are_followed(server: FeedServer) -> None:
    """Up to five redirects lead on, relative ones too."""
    for number in range(5):
        server.put(b"", f"/{number}", status=302, headers={"Location": str(number + 1)})
    server.put(LIST, "/5")

    found = had(server.url("/0"))

    assert found is not None and found.data == LIST


def test_private_address_is_refused(server: FeedServer) -> None:
    """Without allow_private nothing is asked of a loopback address, by number or by name."""
    for url in (server.url(), f"http://localhost:{server.port}/list"):
        assert (
            "is not an address of the public internet: give another URL, or set allow_private_url"
            in refusal(url, allow_private=False)
        )

    assert not server.asked


def test_every_address_of_a_name_is_checked(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One private address among public ones is enough to refuse a name."""
    resolving(monkeypatch, ["8.8.8.8", "127.0.0.1"])

    assert f'"{NAME}" is 127.0.0.1' in refusal(f"http://{NAME}:{server.port}/list", allow_private=False)
    assert not server.asked


def test_connects_to_the_address_that_was_checked(
    server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is resolved once: a second answer of its server would never be used."""
    asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])

    assert had(f"http://{NAME}:{server.port}/list") is not None

    assert asked == [NAME]
    assert server.asked[0][1]["Host"] == f"{NAME}:{server.port}"


def test_redirect_to_a_private_address_is_refused(
    server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target of a redirect is checked as the URL is."""
    resolving(monkeypatch, ["127.0.0.1"])
    server.put(b"", status=302, headers={"Location": "http://10.0.0.1/"})
    monkeypatch.setattr("lb.feeds.addresses.is_public", lambda address: str(address) == "127.0.0.1")

    assert '"10.0.0.1" is 10.0.0.1, which is not an address' in refusal(
        f"http://{NAME}:{server.port}/list", allow_private=False
    )


def test_next_address_is_tried(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing answers at the first address of a name, the second is asked."""
    resolving(monkeypatch, ["127.0.0.77", "127.0.0.1"])

    assert had(f"http://{NAME}:{server.port}/list") is not None


def test_unknown_host() -> None:
    """A name that does not resolve is named."""
    assert 'the host "no.such.invalid" is not found' in refusal("http://no.such.invalid/")


def test_nobody_listens(server: FeedServer) -> None:
    """A refused connection is a failure to fetch."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        assert "cannot be read to its end" in refusal(f"http://127.0.0.1:{port}/")


def test_environment_sets_no_proxy(server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is not asked: it would connect to addresses that nobody checked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    assert had(server.url()) is not None


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for NAME, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    today = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "certificate.pem"
    path.write_bytes(made.public_bytes(pem) + private)
    return path


def test_tls_is_to_the_name(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to an address, and the certificate has to be the name's."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.1"])
    with serving(tls) as server:
        server.put(LIST)

        found = had(f"https://{NAME}:{server.port}/list")

        assert found is not None and found.data == LIST
        assert "certificate" in refusal(f"https://other.test:{server.port}/list").lower()


def test_redirect_from_https_to_http(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect that gives TLS up is not followed."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    resolving(monkeypatch, ["127.0.0.1"])
    with serving(tls) as server:
        server.put(b"", status=301, headers={"Location": "http://127.0.0.1/"})

        assert "from https to http" in refusal(f"https://{NAME}:{server.port}/list")


PRIVATE = [
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1"),
    *("fc00::1", "fd00::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a00:1::1", "64:ff9b:1::1"),
    *("fec0::1", "::7f00:1", "::a00:1"),
]


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public(text: str) -> None:
    """Private, loopback, link-local, multicast and reserved addresses are not public, nor what stands for one."""
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(text: str) -> None:
    """Other addresses are public."""
    assert is_public(ip_address(text))


def test_httpx_is_imported_when_it_is_used() -> None:
    """Neither the daemon nor its feeds import httpx before a feed is fetched from a URL."""
    probe = "import sys, lb.daemon, lb.feeds.schedule; sys.exit('httpx' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_pieces_of_any_size_unpack() -> None:
    """Gzip may come a byte at a time."""
    unpacker = Unpacker(packed=True)
    for byte in gzip.compress(LIST):
        unpacker.add(bytes([byte]))

    assert unpacker.finish() == LIST


def test_file(tmp_path: Path) -> None:
    """A file is read, packed or not."""
    path = tmp_path / "list"
    for data in (LIST, gzip.compress(LIST)):
        path.write_bytes(data)
        assert read_file(str(path)) == LIST


def test_files_that_are_refused(tmp_path: Path) -> None:
    """A file that is not there, is no file, is too long, or never ends is refused at once."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2 << 30)
    cases = {
        "none": "No such file",
        "pipe": "not a regular file",
        ".": "regular file|Is a directory",
        "sparse": "over 64 MiB",
    }
    for name, words in cases.items():
        with pytest.raises(FeedError, match=words):
            read_file(str(tmp_path / name))
    with pytest.raises(FeedError, match="not a regular file"):
        read_file("/dev/zero")


def test_key(tmp_path: Path) -> None:
    """A key is read from a file that others cannot read; anything else is refused, and the key is not shown."""
    path = tmp_path / "key"
    path.write_text("s3cret\n")
    path.chmod(0o640)
    assert read_key(str(path)) == "s3cret"

    path.chmod(0o644)
    with pytest.raises(FeedError, match="holds a key and can be read by everyone: chmod o-r"):
        read_key(str(path))
    path.chmod(0o600)
    for text in ("", "two words", "a" * 600, "a\nb"):
        path.write_text(text)
        with pytest.raises(FeedError, match="does not hold a key") as caught:
            read_key(str(path))
        assert text not in str(caught.value) or not text
    path.unlink()
    with pytest.raises(FeedError, match="No such file"):
        read_key(str(path))


@pytest.mark.parametrize("headers", [{"Content-Encoding": "gzip"}, {}])
def test_gzip_of_countless_members_is_refused(server: FeedServer, headers: dict[str, str]) -> None:
    """Empty members unpack to nothing, so no limit of size ends them."""
    server.put(gzip.compress(b"") * (unpack.MEMBERS_MAX + 1), headers=headers)

    assert "over 10,000 members" in refusal(server.url())


def test_many_members_unpack() -> None:
    """As many as tools make that pack in blocks, wherever pieces are cut."""
    unpacker = Unpacker(packed=True)
    unpacker.add(b"".join(gzip.compress(b"%d\n" % n, mtime=0) for n in range(6000)))

    assert unpacker.finish() == b"".join(b"%d\n" % n for n in range(6000))


def test_a_pipe_is_no_key(tmp_path: Path) -> None:
    """Nobody waits for whoever would write into it, or the daemon could not be stopped."""
    os.mkfifo(tmp_path / "key", 0o600)

    with pytest.raises(FeedError, match="is not a regular file"):
        read_key(str(tmp_path / "key"))


def test_a_host_that_cannot_be(server: FeedServer) -> None:
    """A name that no resolver could be asked for is said to be wrong, also where a redirect leads to it."""
    server.put(b"", status=302, headers={"Location": "http://xn--/"})

    assert "has an impossible host name" in refusal(server.url())
    assert "has an impossible host name" in refusal("http://xn--/")
