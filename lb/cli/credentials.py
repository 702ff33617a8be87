"""Credentials for a daemon over TCP: a token, or a client certificate. Never in argv, which everyone can read."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lb.errors import SluiceError
from lb.settings import ENV_PREFIX

if TYPE_CHECKING:
    import ssl

TOKEN_VARIABLE = f"{ENV_PREFIX}TOKEN"


class CredentialsError(SluiceError):
    """Raised when a file cannot be used, or a token would be sent for all to read."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Files, as the options name them. ca_file: who has signed the daemon's certificate, beside the system's own."""

    token_file: Path | None = None
    ca_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def token(self) -> str | None:
        """The token: of the file, else of SLUICE_TOKEN; None without either."""
        if self.token_file is None:
            return os.environ.get(TOKEN_VARIABLE, "").strip() or None
        try:
            if self.token_file.stat().st_mode & 0o007:
                raise CredentialsError(
                    f"{self.token_file} holds a token and can be read by everyone: chmod o= {self.token_file}"
                )
            text = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            says = getattr(error, "strerror", None) or "it is not text"
            raise CredentialsError(
                f"{self.token_file} cannot be read ({says}): check --token-file"
            ) from error
        if not text or not text.isprintable() or not text.isascii() or " " in text:
            raise CredentialsError(f"{self.token_file} holds no token: write the token into it, on one line")
        return text

    def context(self) -> "ssl.SSLContext":
        """What https connections are made with."""
        import ssl

        try:
            context = ssl.create_default_context()
            if self.ca_file is not None:
                context.load_verify_locations(self.ca_file)
            if self.client_cert is not None:
                context.load_cert_chain(self.client_cert, self.client_key)
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(str(f) for f in (self.ca_file, self.client_cert, self.client_key) if f)
            says = error.strerror or str(error)
            raise CredentialsError(
                f"{files} cannot be used ({says}): check --ca-file, --client-cert and --client-key"
            ) from error
        return context


def credentials_of(options: Mapping[str, Any]) -> Credentials:
    """What the root's options name."""
    return Credentials(**{each.name: options.get(each.name) for each in fields(Credentials)})
