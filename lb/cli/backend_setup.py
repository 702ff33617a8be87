"""sluice backend-setup and decap: commands that prepare a backend, and decapsulation where its kernel has none."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import click

from lb.cli.child import run_module
from lb.cli.client import quoted
from lb.cli.output import bold, emit
from lb.cli.session import Command, Group, Named, Session, pass_session

DECAP = "lb.dataplane.decap"
_AFTER = "case $code in 0) done=yes ;; 3) ;; *) exit $code ;; esac\n"


@click.command(
    cls=Command,
    example=(
        "sluice backend-setup web\n"
        "sluice backend-setup web 10.0.0.11 --script | ssh root@10.0.0.11 sh\n"
        "sluice backend-setup web --undo --script > undo.sh"
    ),
)
@click.argument("service", type=Named())
@click.argument("address", required=False, type=Named())
@click.option("--script", is_flag=True, help="Print a complete script, which is safe to repeat.")
@click.option("--undo", is_flag=True, help="Undo it; what other services need stays.")
@pass_session
def backend_setup(session: Session, service: str, address: str | None, script: bool, undo: bool) -> None:
    """Print the commands that prepare a backend.

    They put the VIP on lo, stop ARP for it, turn off the reverse-path check and, for modes ipip and gue, set up
    decapsulation. The script finds out which of the backends it runs on, and what the kernel there supports.
    """
    document = session.client.call(
        "GET",
        f"/services/{quoted(service)}/backend-setup",
        query={"address": address, "undo": "true" if undo else None},
    ).document
    if script:
        click.echo(joined(one["script"] for one in document["items"]), nl=False)
        return
    emit(session, document, lambda: setup_lines(document["items"]))


def joined(scripts: Iterable[str]) -> str:
    """One script of several: each runs in a shell of its own, and those that are for other machines do nothing."""
    listed = list(scripts)
    if len(listed) == 1:
        return listed[0]
    head = (
        "#!/bin/sh\n# Backends of IPv4 and of IPv6: each machine does the parts that are for it.\ndone=no\n"
    )
    parts = (f"code=0\nsh <<'PART' || code=$?\n{text}PART\n{_AFTER}" for text in listed)
    return f"{head}{''.join(parts)}[ $done = yes ]\n"


def setup_lines(document: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The commands, each step with its reason; what can be pasted into a root shell on the backend."""
    for one in document:
        for address in one["addresses"]:
            yield bold(f"# on {address}, as root ({'undoing ' if one['undo'] else ''}mode {one['mode']})")
            yield f"own={address}"
            for step in one["steps"]:
                yield f"# {step['why']}"
                yield from step["commands"]
            yield ""


@click.group(cls=Group, example="sluice decap attach eth0\nsluice decap detach eth0")
def decap() -> None:
    """Strip outer headers on a backend.

    This uses an XDP program, for kernels without a tunnel device. `sluice backend-setup --script` uses it if needed.
    """


@decap.command(cls=Command, example="sluice decap attach eth0\nsluice decap attach eth0 10.0.0.11 fd00::11")
@click.argument("interface", type=Named())
@click.argument("addresses", nargs=-1, type=Named())
@click.option(
    "--gue-port", type=click.IntRange(1, 65535), default=6080, show_default=True, help="UDP port of GUE."
)
def attach(interface: str, addresses: tuple[str, ...], gue_port: int) -> None:
    """Strip the headers of tunnels that end here.

    They end at ADDRESSES, or at any address of the interface; this lasts until detached, or until a reboot.
    """
    _run("attach", interface, *addresses, "--gue-port", str(gue_port))


@decap.command(cls=Command, example="sluice decap detach eth0")
@click.argument("interface", type=Named())
def detach(interface: str) -> None:
    """Detach the program."""
    _run("detach", interface)


def _run(*words: str) -> None:
    """In a process of its own, as this one imports nothing that touches the kernel."""
    done = run_module(DECAP, *words)
    click.get_current_context().exit(done.returncode)
