"""sluice serve and detach: they do their work in this process, so they alone import the daemon."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from lb.cli.options import file_option, state_dir_option
from lb.cli.session import Command, Named, envvar
from lb.settings import DEFAULT_SOCKET, PIN_ROOT, ServeSettings, TableSizes, XdpMode

_PORT_MAX = 65535


class ListenAddress(click.ParamType[str]):
    """ADDR:PORT, an IPv6 address in brackets."""

    name = "addr:port"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The text as it is, or a usage error."""
        host, _, port = str(value).rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not host or (":" in host and not bracketed) or not port.isdecimal() or int(port) > _PORT_MAX:
            self.fail(
                f'"{value}" is not a listening address: write 127.0.0.1:8080 or [::1]:8080',
                parameter,
                context,
            )
        return str(value)


def _size_options(function: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of TableSizes."""
    for size in reversed(fields(TableSizes)):
        option = size.name.replace("_", "-")
        function = click.option(
            f"--{option}",
            size.name,
            type=click.IntRange(min=size.metadata.get("least", 1)),
            default=size.default,
            show_default=True,
            envvar=envvar(option),
            help=f"Room for: {size.metadata['help']}.",
        )(function)
    return function


@click.command(
    cls=Command,
    example=(
        "sluice serve --interface eth0\n"
        "sluice serve --interface eth0 --listen 192.0.2.1:8443 --tls-cert edge.pem --tls-key edge.key\n"
        "sluice serve --interface eth0 --xdp-mode native --listen 127.0.0.1:8080"
    ),
)
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    required=True,
    type=Named(),
    metavar="IF",
    envvar=envvar("interface"),
    help="Interface to serve; repeat for more (in SLUICE_INTERFACE, separate them by spaces).",
)
@click.option(
    "--xdp-mode",
    type=click.Choice([mode.value for mode in XdpMode]),
    default=XdpMode.AUTO.value,
    show_default=True,
    envvar=envvar("xdp-mode"),
    help="Where the program runs: in the driver (native), in the stack (generic), or in the driver if it can.",
)
@state_dir_option
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar=envvar("cache-dir"),
    help="Where compiled programs are kept; default: in the state directory. May be deleted at any time.",
)
@click.option(
    "--socket",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_SOCKET,
    show_default=True,
    envvar=envvar("socket"),
    help="The unix socket of the API.",
)
@click.option(
    "--socket-group",
    metavar="GROUP",
    envvar=envvar("socket-group"),
    help="The group whose members may use the socket, as root may; default: the daemon's own group.",
)
@click.option(
    "--listen",
    type=ListenAddress(),
    envvar=envvar("listen"),
    help="Open the API on TCP too, not only on the socket. Without TLS, only a loopback address.",
)
@file_option("--tls-cert", "Certificate of the TCP listener (PEM, followed by its chain); SIGHUP reloads it.")
@file_option("--tls-key", "Its key (PEM), which others must not be able to read.")
@file_option(
    "--tls-client-ca", "CAs of client certificates (PEM); their roles: settings.access.certificates."
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar=envvar("config"),
    help="A document (as for apply) to fill an empty store with at the first start.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar=envvar("log-format"),
    help="Format of the log.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar=envvar("log-level"),
    help="The lowest level that is logged. Info has refused and slow requests, debug every request.",
)
@click.option(
    "--replace-foreign-program",
    "replace_foreign",
    is_flag=True,
    envvar=envvar("replace-foreign-program"),
    help="Attach even if another XDP program is attached, replacing it.",
)
@_size_options
def serve(**options: Any) -> None:
    """Run the daemon in the foreground.

    SIGTERM ends it, and leaves the data plane attached and forwarding.

    Every option can also be set as SLUICE_*, such as SLUICE_XDP_MODE.
    """
    try:
        sizes = TableSizes(**{size.name: options.pop(size.name) for size in fields(TableSizes)})
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    xdp_mode = XdpMode(options.pop("xdp_mode"))
    settings = ServeSettings(**options, xdp_mode=xdp_mode, sizes=sizes)

    from lb import daemon

    click.get_current_context().exit(daemon.run(settings))


@click.command(cls=Command, example="sluice detach --interface eth0")
@click.option("--interface", required=True, type=Named(), metavar="IF", help="Interface to detach from.")
def detach(interface: str) -> None:
    """Detach the program from an interface.

    Its pins are removed; traffic there is no longer balanced or dropped.
    """
    from lb import daemon

    daemon.detach(interface, PIN_ROOT)
    click.echo(f"Sluice is detached from {interface}")
