"""sluice service: list, show, add and remove services."""

from collections.abc import Callable, Iterable
from typing import Any

import click

from lb.cli.backend import health_errors, observed_backends
from lb.cli.flood import FIELD, flood_fields, flood_options, flood_words, take_flood_document
from lb.cli.health import FIELD as HEALTH
from lb.cli.health import health_check_words, health_options, take_health_document
from lb.cli.names import SERVICE
from lb.cli.output import Row, cell, count, emit, fields, table
from lb.cli.session import Group, Named, Session, confirm, moving_option, pass_session, yes_option
from lb.cli.watch import Watched

_MODES = ("l2", "ipip", "gue", "nat")
_AFFINITIES = ("flow", "source", "destination-port")


class BackendSpec(click.ParamType[dict[str, str | int]]):
    """ADDR or ADDR=WEIGHT, as the document the daemon takes."""

    name = "addr[=weight]"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> dict[str, str | int]:
        """{"address", "weight"?}, or a usage error where the weight is no number."""
        if isinstance(value, dict):
            return value
        address, separator, weight = str(value).partition("=")
        if not separator:
            return {"address": address}
        if not (weight.isascii() and weight.isdigit()):
            self.fail(f'"{weight}" is not a weight: write 10.0.0.11=2', parameter, context)
        return {"address": address, "weight": int(weight)}


class Label(click.ParamType[tuple[str, str]]):
    """K=V, as a pair."""

    name = "k=v"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[str, str]:
        """(key, value), or a usage error."""
        if isinstance(value, tuple):
            return value
        key, separator, text = str(value).partition("=")
        if not separator or not key:
            self.fail(f'"{value}" is not a label: write team=edge', parameter, context)
        return key, text


@click.group(cls=Group, example="sluice service list")
def service() -> None:
    """Services, and where they are reached.

    A service is a VIP, port and protocol, and the backends that answer for it.
    """


def service_table(services: Iterable[dict[str, Any]]) -> list[str]:
    """The table of services as they are (documents of /status)."""
    header = ("name", "vip", "port", "protocol", "mode", "backends", "flows", "packets")
    return table(header, (_row(s) for s in services))


def _row(one: dict[str, Any]) -> Row:
    states = [b["effective_state"] for b in one["backends"]]
    return (
        *(one[key] for key in ("name", "vip", "port", "protocol", "mode")),
        f"{states.count('active')}/{len(states)} active",
        count(one["flows"]),
        count(one["packets"]),
    )


@service.command(name="list", cls=Watched, example=("sluice service list\nsluice service list -o json"))
@pass_session
def list_services(session: Session) -> None:
    """List all services, with their observed state."""
    if session.is_table:
        observed = session.client.call("GET", "/status").document["services"]
        emit(session, None, lambda: service_table(observed))
    else:
        emit(session, session.client.call("GET", "/services").document, list)


@service.command(example="sluice service show web")
@click.argument("name", type=SERVICE)
@pass_session
def show(session: Session, name: str) -> None:
    """Show one service with its backends."""
    from lb.cli.client import quoted

    one = session.client.call("GET", f"/services/{quoted(name)}").document

    def lines() -> Iterable[str]:
        seen = session.client.call("GET", f"/services/{quoted(name)}/status").document
        plain = {
            k: v
            for k, v in one.items()
            if k not in {"backends", "labels", FIELD, HEALTH} and not isinstance(v, dict | list)
        }
        yield from fields(
            [
                *plain.items(),
                ("protection", flood_words(one[FIELD])),
                ("health check", health_check_words(one[HEALTH])),
                *flood_fields(seen[FIELD]),
                ("labels", " ".join(f"{k}={v}" for k, v in one.get("labels", {}).items())),
                ("flows", count(seen["flows"])),
                ("packets", count(seen["packets"])),
                ("bytes", count(seen["bytes"], "B")),
            ]
        )
        yield ""
        yield from observed_backends(seen["backends"])
        yield from health_errors(seen["backends"])

    emit(session, one, lines)


def policy_options(on_or_off: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that say how a service forwards; on_or_off: flags have a --no- form too."""

    def flag(name: str, does: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
        declared = f"--{name}/--no-{name}" if on_or_off else f"--{name}"
        return click.option(declared, is_flag=True, default=None, help=does)

    options = (
        click.option(
            "--mode",
            type=click.Choice(_MODES),
            help="How packets reach the backend: by MAC rewrite, in IP (default), in UDP (GUE), or translated.",
        ),
        click.option(
            "--nat-source",
            type=click.Choice(("pool", "keep")),
            help="The source that backends see: an address of nat_pools (default), or the client; only in mode nat.",
        ),
        click.option(
            "--affinity",
            type=click.Choice(_AFFINITIES),
            help="What keeps a client on one backend: its flow (default), its address, or the destination port.",
        ),
        flag("udp-migration", "Flows leave a draining backend at once; only for UDP."),
        flag("quic", "Packets follow the backend number in their QUIC connection ID; only for UDP."),
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@service.command(
    example=(
        "sluice service add web --vip 192.0.2.10 --port 80 --protocol tcp \\\n"
        "  --backend 10.0.0.11 --backend 10.0.0.12=2 --label team=edge\n"
        "sluice service add h3 --vip 2001:db8:5::/64 --port 443 --protocol udp \\\n"
        "  --mode gue --quic --udp-migration\n"
        "sluice service add api --vip 192.0.2.11 --port 80 --protocol tcp --backend 10.0.0.11 \\\n"
        "  --health-check http --health-path /healthz --health-interval 1 --slow-start 30\n"
        "sluice service add ping --vip 192.0.2.11 --protocol icmp --mode nat --backend 10.0.0.11"
    )
)
@click.argument("name", type=Named())
@click.option(
    "--vip",
    required=True,
    metavar="ADDR|PREFIX",
    help="The address clients connect to, or an IPv6 prefix of such addresses, /64 to /120.",
)
@click.option("--port", metavar="N|A-B|any", help="A port, a range of ports, or any; not for icmp.")
@click.option(
    "--protocol",
    required=True,
    type=click.Choice(["tcp", "udp", "icmp"]),
    help="The transport protocol; or icmp, for echo requests, only in mode nat.",
)
@policy_options(on_or_off=False)
@flood_options(on_or_off=False)
@health_options(on_or_off=False)
@click.option(
    "--backend",
    "backends",
    type=BackendSpec(),
    multiple=True,
    help="A backend; repeat for more. The default weight is 1.",
)
@click.option("--label", "labels", type=Label(), multiple=True, help="Any key and value; repeat for more.")
@pass_session
def add(
    session: Session,
    /,
    *,
    name: str,
    vip: str,
    port: str | None,
    protocol: str,
    backends: tuple[dict[str, str | int], ...],
    labels: tuple[tuple[str, str], ...],
    **policy: Any,
) -> None:
    """Add a service.

    A name, or a VIP with that port, that is taken is a conflict (exit code 4).
    """
    document: dict[str, Any] = {"name": name, "vip": vip, "protocol": protocol}
    # What was not said is left out: its default is the daemon's to choose.
    checks = take_health_document(policy, new=True)
    said = {
        "port": port,
        **take_flood_document(policy),
        **checks,
        **policy,
        "labels": dict(labels),
        "backends": list(backends),
    }
    document |= {key: value for key, value in said.items() if value}
    made = session.write("POST", "/services", body=document)

    def lines() -> Iterable[str]:
        number = len(made["backends"])
        at = "" if made["port"] is None else f" port {made['port']}"
        yield (
            f"service {made['name']} added: {made['protocol']} {made['vip']}{at}, "
            f"{number} backend{'' if number == 1 else 's'}"
        )

    emit(session, made, lines)


@service.command(
    name="set",
    example=(
        "sluice service set web --affinity source\n"
        "sluice service set h3 --mode gue --no-quic\n"
        "sluice service set web --flood-protection 5000 --flood-test\n"
        "sluice service set web --health-check http --health-path /healthz"
    ),
)
@click.argument("name", type=SERVICE)
@policy_options(on_or_off=True)
@flood_options(on_or_off=True)
@health_options(on_or_off=True)
@moving_option
@pass_session
def set_policy(session: Session, /, name: str, **policy: Any) -> None:
    """Change how a service forwards, is protected and is checked.

    What is not given stays. Known flows stay with their backend. VIP, port and protocol are changed in the document:
    sluice export, apply.
    """
    from lb.cli.client import quoted

    more = take_flood_document(policy) | take_health_document(policy, new=False)
    patch = {key: value for key, value in policy.items() if value is not None} | more
    if not patch:
        raise click.UsageError(
            "nothing to change: give --mode, --nat-source, --affinity, --udp-migration, --quic, --flood-protection "
            "or --health-check"
        )
    made = session.write("PATCH", f"/services/{quoted(name)}", body=patch)

    def lines() -> Iterable[str]:
        words = {FIELD: flood_words, HEALTH: health_check_words}
        now = ", ".join(
            f"no {key}"
            if made[key] is None
            else f"{key} {cell(words[key](made[key]) if key in words else made[key])}"
            for key in patch
        )
        yield f"service {made['name']} changed: {now}"

    emit(session, made, lines)


@service.command(example="sluice service remove web --yes")
@click.argument("name", type=SERVICE)
@yes_option
@moving_option
@pass_session
def remove(session: Session, name: str, yes: bool) -> None:
    """Remove a service and its backends.

    Its packets then pass to the kernel.
    """
    from lb.cli.client import quoted

    confirm(f"Remove service {name} and all its backends?", yes)
    document = session.write("DELETE", f"/services/{quoted(name)}")
    emit(session, document, lambda: [f"service {name} removed"])
