"""The present state of a lab, as the JSON of `lab.py status` and as text."""

from typing import Any

import inside
import place
from place import Lab
from pyroute2 import IPRoute
from topology import VIPS, namespaces


def survey(lab: Lab) -> dict[str, Any]:
    """Every namespace with its role, interfaces and processes. NotFoundError if the lab is not up."""
    started = place.started(lab)
    return {
        "name": lab.name,
        "config": lab.config,
        "server": f"unix://{lab.socket}",
        "socket": str(lab.socket),
        "state_dir": str(lab.state_dir),
        "daemon_log": str(lab.daemon_log),
        "interface": lab.names.balancer_interface,
        "vips": list(lab.configuration.vips),
        "vip_ranges": [str(network) for network in VIPS],
        "namespaces": [
            {
                "namespace": namespace,
                "role": role,
                "number": number,
                "interfaces": inside.route(namespace, _interfaces),
                "processes": [
                    {"what": s.what, "pid": s.process.pid, "running": s.process.is_running()}
                    for s in started
                    if (s.role, s.number) == (role, number)
                ],
            }
            for role, number, namespace in namespaces(lab.names, lab.configuration)
        ],
    }


def _interfaces(route: IPRoute) -> list[dict[str, Any]]:
    addresses = list(route.get_addr())
    return [
        {
            "name": link.get("ifname"),
            "index": link["index"],
            "mac": link.get("address"),
            "mtu": link.get("mtu"),
            "xdp": link.get_nested("IFLA_XDP", "IFLA_XDP_PROG_ID"),
            "addresses": [
                f"{a.get('address')}/{a['prefixlen']}" for a in addresses if a["index"] == link["index"]
            ],
        }
        for link in route.get_links()
    ]


def describe(document: dict[str, Any]) -> str:
    """The same for people: one line per namespace, then how to talk to the daemon."""
    lines = [f'lab "{document["name"]}", configuration "{document["config"]}"', ""]
    for entry in document["namespaces"]:
        addresses = [
            a
            for i in entry["interfaces"]
            for a in i["addresses"]
            if not a.startswith(("127.", "::1/", "fe80:"))
        ]
        running = [
            f"{p['what']} (pid {p['pid']}{'' if p['running'] else ', ended'})" for p in entry["processes"]
        ]
        title = f"{entry['role']} {entry['number']}"
        lines.append(f"  {title:11} {', '.join(addresses) or '-'}")
        if running:
            lines.append(f"  {'':11} {', '.join(running)}")
    name = "" if document["name"] == "lab" else f" --name {document['name']}"
    vip = next((v for v in document["vips"] if ":" not in v), "10.200.1.1")
    lines += [
        "",
        f"  .venv/bin/sluice --server {document['server']} status",
        f"  curl --unix-socket {document['socket']} http://sluice/v1/services",
        f"  netns-lab/lab.py exec{name} client 1 -- curl -s http://{vip}/whoami",
        f"  netns-lab/lab.py capture{name} backend 1",
        f"  netns-lab/lab.py page{name}",
        f"  netns-lab/lab.py down{name}",
    ]
    return "\n".join(lines)
