"""The real data plane on a veth pair, under a reconciler: all of a daemon but its API."""

import ctypes
import os
from pathlib import Path
from typing import Any

from frames import BACKENDS4, tcp
from rig import XDP_ACTIONS
from scapy.packet import Packet

from lb.dataplane import libbpf
from lb.dataplane.hook import remove_pins
from lb.dataplane.kernel import KernelDataPlane
from lb.dataplane.twin import SMALL
from lb.model.document import from_mapping
from lb.reconcile.loop import Reconciler
from lb.settings import ServeSettings, TableSizes
from lb.store import SqliteStore

_CLONE_NEWNET = 0x40000000


class Balancer:
    """A real data plane on a veth pair in a network namespace that only this thread is in."""

    def __init__(self, pin_root: Path, *interfaces: str, sizes: TableSizes = SMALL) -> None:
        from pyroute2 import IPRoute

        assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0
        with IPRoute() as ip:
            ip.link("add", ifname="known0", kind="veth", peer={"ifname": "known1"})
            for name in ("known0", "known1"):
                index = ip.link_lookup(ifname=name)[0]
                ip.link("set", index=index, state="up")
            index = ip.link_lookup(ifname="known0")[0]
            ip.addr("add", index=index, address="10.0.0.1", prefixlen=24)
            for number, backend in enumerate(BACKENDS4):
                ip.neigh(
                    "add",
                    dst=backend,
                    lladdr=f"02:00:00:00:0b:{number:02x}",
                    ifindex=index,
                    state="permanent",
                )
            self.mac = bytes.fromhex(ip.get_links(index)[0].get_attr("IFLA_ADDRESS").replace(":", ""))
        self.pin_root = pin_root
        self.store = SqliteStore(":memory:")
        self.interfaces = interfaces or ("known0",)
        self._start(sizes, bytes(16))

    def _start(self, sizes: TableSizes, flow_key: bytes) -> None:
        settings = ServeSettings(interfaces=self.interfaces, pin_root=self.pin_root, sizes=sizes)
        self.plane = KernelDataPlane(settings, flow_key)
        self.control = Reconciler(self.store, self.plane)
        self.control.start()

    def restart(self, sizes: TableSizes, flow_key: bytes = bytes(16)) -> None:
        """Another daemon over what is attached, with tables of these sizes."""
        self.control.stop()
        self.plane.close()
        self._start(sizes, flow_key)

    def close(self) -> None:
        """Take all of it away again."""
        self.control.stop()
        self.plane.close()
        self.store.close()
        for name in self.interfaces:
            remove_pins(name, self.pin_root)

    def want(self, *services: dict[str, Any], **settings: object) -> None:
        """Make these the services, and these settings others than they are by default."""
        document = {"services": list(services), "settings": settings}
        self.control.change(
            lambda have: from_mapping(document, now=0.0, have=have),
            actor="test",
            summary="test",
        )

    def attached(self) -> int | None:
        """The id of the program that the interface has."""
        return self.plane.interfaces()[0].program_id

    def forwards(self) -> bytes:
        """What the pinned program makes of a TCP packet."""
        action, out = self.run(tcp())
        assert action == XDP_ACTIONS["tx"]
        return out

    def run(self, frame: Packet) -> tuple[int, bytes]:
        """The pinned program's action for a frame, and the frame as it leaves."""
        fd = libbpf.obj_get(self.pin_root / "known0" / "program")
        try:
            return libbpf.test_run(fd, self.mac + bytes(frame)[6:])
        finally:
            os.close(fd)
