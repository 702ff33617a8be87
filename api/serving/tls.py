"""TLS of the API's TCP listener: files are checked before use, and reloaded without a restart."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from lb.errors import SetupError

SOON = timedelta(days=14)
"""How long before a certificate's expiry to warn."""
DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. client_ca: the CAs of client certificates; without it none is requested."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def of(cls, certificate: Path | None, key: Path | None, client_ca: Path | None) -> "TlsFiles | None":
        """From the options; None: no TLS. SetupError: they do not fit together."""
        if certificate is None and key is None:
            if client_ca is not None:
                raise SetupError("--tls-client-ca needs TLS: also give --tls-cert and --tls-key")
            return None
        if certificate is None:
            raise SetupError(f"--tls-key {key} is without its certificate: also give --tls-cert")
        if key is None:
            raise SetupError(f"--tls-cert {certificate} is without its key: also give --tls-key")
        return cls(certificate, key, client_ca)


def context_of(
    files: TlsFiles, *, now: datetime, warn: Callable[[str], None] = lambda _: None
) -> ssl.SSLContext:
    """The TLS context; SetupError says which file is at fault. warn is called for what expires soon."""
    _check_key(files.key)
    for path, certificate in _dated(files):
        _check_dates(path, certificate, now, warn)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would be spared the look at its client's certificate, though the CA has changed meanwhile.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password(files.key))
    except ssl.SSLError as error:
        says = (
            f"{files.key} is not the key of {files.certificate}: give a matching pair"
            if error.reason == "KEY_VALUES_MISMATCH"
            else f"{files.certificate} and {files.key} cannot be used ({error.reason or error}): give PEM files"
        )
        raise SetupError(says) from error
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
        context.verify_mode = ssl.CERT_OPTIONAL  # who has none may have a token
    return context


class Certificates:
    """The listening context, behind which another takes over at each reload; existing connections stay."""

    def __init__(self, files: TlsFiles, *, warn: Callable[[str], None] = lambda _: None) -> None:
        self._files, self._warn = files, warn
        self._dated = list(_dated(files))
        self._current = context_of(files, now=datetime.now(UTC), warn=warn)
        self.context = context_of(files, now=datetime.now(UTC))
        self.context.sni_callback = self._hand_over

    def reload(self) -> None:
        """Reload the files, for new connections; SetupError: nothing has changed."""
        dated = list(_dated(self._files))
        self._current = context_of(self._files, now=datetime.now(UTC), warn=self._warn)
        self._dated = dated

    def look(self, now: datetime) -> None:
        """Warn of those in use that will end soon, or have ended: a daemon may run longer than they do."""
        for path, certificate in self._dated:
            if (says := _ending(path, certificate, now)) is not None:
                self._warn(says)

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current


async def keep_looking(certificates: Certificates, pause: float = DAY_SECONDS) -> None:
    """Once a day, for as long as the daemon serves. The first look was at the start."""
    while True:
        await asyncio.sleep(pause)
        certificates.look(datetime.now(UTC))


def _check_key(path: Path) -> None:
    try:
        mode = path.stat().st_mode
        path.read_bytes()
    except OSError as error:
        raise SetupError(
            f"--tls-key {path} cannot be read ({error.strerror}): see who may read it"
        ) from error
    if mode & 0o007:
        raise SetupError(f"--tls-key {path} can be read by everyone: chmod o= {path}")


def _read_certificates(path: Path, option: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SetupError(f"{option} {path} cannot be read ({error.strerror}): see who may read it") from error
    except ValueError as error:
        raise SetupError(f"{option} {path} does not hold a certificate: give a PEM file") from error


def _dated(files: TlsFiles) -> Iterator[tuple[Path, x509.Certificate]]:
    """What must not end: the server's certificate, and those that sign clients'."""
    yield files.certificate, _read_certificates(files.certificate, "--tls-cert")[0]
    if files.client_ca is not None:
        for authority in _read_certificates(files.client_ca, "--tls-client-ca"):
            yield files.client_ca, authority


def _check_dates(
    path: Path, certificate: x509.Certificate, now: datetime, warn: Callable[[str], None]
) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now >= ends:
        raise SetupError(f"the certificate in {path} ended at {ends:%Y-%m-%d %H:%M} UTC: renew it")
    if now < begins:
        raise SetupError(
            f"the certificate in {path} begins at {begins:%Y-%m-%d %H:%M} UTC: wait, or check the clock"
        )
    if (says := _ending(path, certificate, now)) is not None:
        warn(says)


def _ending(path: Path, certificate: x509.Certificate, now: datetime) -> str | None:
    ends = certificate.not_valid_after_utc
    if ends - now >= SOON:
        return None
    ending = "ends" if now < ends else "ended"
    return f"the certificate in {path} {ending} at {ends:%Y-%m-%d %H:%M} UTC: renew it, and send SIGHUP"


def _no_password(path: Path) -> Callable[[], str]:
    def ask() -> str:
        raise SetupError(
            f"--tls-key {path} is encrypted, and nobody can be asked for its password: decrypt it"
        )

    return ask
