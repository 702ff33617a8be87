"""Secrets of the daemon: each is a file of its own, so that the state file and its copies hold none."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from lb.errors import StoreError

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what LoadCredential= and LoadCredentialEncrypted= name."""


def secret(folder: Path, name: str, size: int) -> bytes:
    """So many random bytes, drawn at the first call and the same ever after; or the systemd credential of that name.

    The file is made with mode 0600, whole or not at all. StoreError: it cannot be, or others can read it.
    """
    given = os.environ.get(CREDENTIALS)
    if given and (path := Path(given, name)).exists():
        return _read(path, size)
    path, fresh = folder / name, folder / f"{name}.new"
    try:
        fresh.unlink(missing_ok=True)  # of a process that was killed
        if not path.exists():
            with open(
                os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb"
            ) as file:
                file.write(secrets.token_bytes(size))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(fresh, path)  # never over one that another process has drawn
            fresh.unlink()
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise StoreError(f"{path} holds a secret, and others may read it: chmod 600 {path}")
        return _read(path, size)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read or written ({error.strerror}): see who owns {folder}"
        ) from error


def _read(path: Path, size: int) -> bytes:
    kept = path.read_bytes()
    if len(kept) != size:
        raise StoreError(
            f"{path} has {len(kept)} bytes, not {size}: put the right file back, or remove it to have one drawn"
        )
    return kept
