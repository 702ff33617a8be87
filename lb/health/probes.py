"""One check of one backend, of any type: it ends in time, and returns what was found."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from lb.health import http
from lb.health.dial import Dialer, ProbeFailedError, UnableError, failure_of
from lb.health.target import Target
from lb.model.health import CheckType, datagram

_DATAGRAM_MOST = 65535
_NOBODY = 65534
_OUTPUT_MOST = 200
_LATE_LEAST, _LATE_SHARE = 0.1, 0.25
"""Seconds, or this share of the timeout: who looks later than that cannot say that there was no answer."""
_NOT_RUN = frozenset({126, 127})
"""What setpriv exits with when it cannot execute a program."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """ok: None if the backend could not be asked, which says nothing of it. why: what went wrong."""

    ok: bool | None
    why: str | None
    seconds: float


Probe = Callable[[Target, Dialer], Awaitable[Outcome]]


async def ask(target: Target, dialer: Dialer) -> Outcome:
    """Check it once. Raises nothing but CancelledError."""
    clock, patience = asyncio.get_running_loop().time, target.check.timeout_seconds
    began = clock()
    ok: bool | None = True
    why: str | None = None
    try:
        async with asyncio.timeout(patience) as timeout:
            await _BY_TYPE[target.check.type](target, dialer)
    except ProbeFailedError as error:
        ok, why = False, str(error)
    except UnableError as error:
        ok, why = None, str(error)
    except OSError as error:  # TimeoutError is one, also when it is the kernel's
        if timeout.expired():
            ok, why = _too_late(target, clock() - began - patience)
        else:
            failure = failure_of(error, target)
            ok, why = (None if isinstance(failure, UnableError) else False), str(failure)
    return Outcome(ok, why, clock() - began)


def _too_late(target: Target, over: float) -> tuple[bool | None, str]:
    """What it means that there was no answer in time; over: how long after that we came to see it."""
    patience = target.check.timeout_seconds
    if over > max(_LATE_LEAST, patience * _LATE_SHARE):
        return None, f"this machine was too busy to see its answer: {over:.1f} s late"
    if target.check.type is CheckType.COMMAND:
        return False, f"the command did not end within {patience:g} s"
    return False, f"no answer from {target.address} port {target.port} within {patience:g} s"


async def _tcp(target: Target, dialer: Dialer) -> None:
    with dialer.open(target, socket.SOCK_STREAM) as client:
        await asyncio.get_running_loop().sock_connect(client, (str(target.address), target.port))


async def _exchange(
    target: Target, dialer: Dialer, request: bytes, is_answer: Callable[[bytes], bool]
) -> None:
    """Send a datagram, and wait for one that is the answer to it."""
    loop = asyncio.get_running_loop()
    with dialer.open(target, socket.SOCK_DGRAM) as client:
        client.connect((str(target.address), target.port))
        await loop.sock_sendall(client, request)
        while not is_answer(await loop.sock_recv(client, _DATAGRAM_MOST)):
            pass


async def _udp(target: Target, dialer: Dialer) -> None:
    wanted = datagram(target.check.reply or "")

    def is_answer(reply: bytes) -> bool:
        if not reply.startswith(wanted):
            raise ProbeFailedError(f"it answers {_shown(reply)}, but {_shown(wanted)} is wanted")
        return True

    await _exchange(target, dialer, datagram(target.check.request or ""), is_answer)


async def _dns(target: Target, dialer: Dialer) -> None:
    import dns.exception
    import dns.message
    import dns.rcode

    check = target.check
    query = dns.message.make_query(check.dns_name or "", check.dns_type)

    def is_answer(reply: bytes) -> bool:
        try:
            answer = dns.message.from_wire(reply)
        except (dns.exception.DNSException, ValueError) as error:
            raise ProbeFailedError(
                f"it does not answer in DNS: {str(error) or type(error).__name__}"
            ) from error
        if not query.is_response(answer):
            return False
        if answer.rcode() != dns.rcode.from_text(check.dns_rcode):
            said = dns.rcode.to_text(answer.rcode())
            raise ProbeFailedError(f"it answers {said}, but {check.dns_rcode} is wanted")
        return True

    await _exchange(target, dialer, query.to_wire(), is_answer)


async def _command(target: Target, _dialer: Dialer) -> None:
    """As nobody and with no privileges, whoever runs us. What it is about is in its environment."""
    about = {
        "SLUICE_SERVICE": target.service,
        "SLUICE_BACKEND": str(target.backend),
        "SLUICE_VIP": str(target.vip),
        "SLUICE_PORT": str(target.port),
    }
    try:
        process = await asyncio.create_subprocess_exec(
            *_unprivileged(),
            *(target.check.command or ()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **about},
            start_new_session=True,
        )
    except OSError as error:
        raise UnableError(f"the command cannot be started: {error.strerror}") from error
    try:
        _out, said = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it has started
            await process.wait()
    words = " ".join(said.decode(errors="replace").split())[:_OUTPUT_MOST]
    says = "".join(c if c.isprintable() else "?" for c in words)
    if process.returncode in _NOT_RUN:
        raise UnableError(f"the command cannot be run: {says}")
    if process.returncode:
        raise ProbeFailedError(f"exit code {process.returncode}{f': {says}' if says else ''}")


def _unprivileged() -> list[str]:
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    if setpriv is None:
        raise UnableError("setpriv is not there to run commands as nobody: install util-linux")
    # Whatever kills us, it ends too: nobody else would wait for it.
    words = [setpriv, "--no-new-privs", "--inh-caps=-all", "--pdeathsig=KILL"]
    if os.geteuid() == 0:
        return [*words, f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    return [*words, "--ambient-caps=-all"]


def _shown(data: bytes) -> str:
    text = data[:40]
    return f'"{text.decode()}"' if text.isascii() and text.decode().isprintable() else f"hex:{text.hex()}"


_BY_TYPE = {
    CheckType.TCP: _tcp,
    CheckType.HTTP: http.probe,
    CheckType.HTTPS: http.probe,
    CheckType.UDP: _udp,
    CheckType.DNS: _dns,
    CheckType.COMMAND: _command,
}
