"""AXI4 ports of the machine: one ID, INCR bursts of full-width beats."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.interfaces import ADDR_BITS

__all__ = ["AxiMaster", "AxiRead", "AxiWrite", "join"]

ID_BITS = 4
INCR = 1
CACHE = 0b0011  # normal memory, not cacheable, bufferable


def _address_channel(prefix: str) -> dict[str, Any]:
    widths = {"id": ID_BITS, "addr": ADDR_BITS, "len": 8, "size": 3, "burst": 2, "cache": 4, "prot": 3, "valid": 1}
    return {**{prefix + name: Out(width) for name, width in widths.items()}, prefix + "ready": In(1)}


class AxiRead(wiring.Signature):
    """Channels AR and R of an AXI4 master with `data_bytes` wide data; members carry the names of the specification."""

    def __init__(self, *, data_bytes: int) -> None:
        super().__init__(
            {
                **_address_channel("ar"),
                "rid": In(ID_BITS),
                "rdata": In(8 * data_bytes),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class AxiWrite(wiring.Signature):
    """Channels AW, W and B of an AXI4 master with `data_bytes` wide data."""

    def __init__(self, *, data_bytes: int) -> None:
        super().__init__(
            {
                **_address_channel("aw"),
                "wdata": Out(8 * data_bytes),
                "wstrb": Out(data_bytes),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bid": In(ID_BITS),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class AxiMaster(wiring.Signature):
    """All five channels."""

    def __init__(self, *, data_bytes: int) -> None:
        super().__init__(
            {**dict(AxiWrite(data_bytes=data_bytes).members), **dict(AxiRead(data_bytes=data_bytes).members)}
        )


def join(m: Module, master: Any, parts: list[Any]) -> None:
    """Connect channels of `parts` (AxiRead and AxiWrite ports of submodules) to the port `master` of a component."""
    for part in parts:
        for name, member in part.signature.members.items():
            source, target = (part, master) if member.flow is Out else (master, part)
            m.d.comb += getattr(target, name).eq(getattr(source, name))
