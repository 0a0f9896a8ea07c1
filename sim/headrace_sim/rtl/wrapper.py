"""The module around a design under simulation, which decides when its inputs change.

Verilator evaluates all logic that depends on top-level inputs whenever any of them might have changed, and reset
reaches nearly all logic. So inputs are registered: reset at the rising edge, the others at the falling edge, from where
their effects have settled when the outputs are sampled before the next rising edge.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["WRAPPER", "wrapper"]

WRAPPER = "testbench"
"""Name of the module."""

_AXIL_INPUTS = {
    "awaddr": 12, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "bready": 1,
    "araddr": 12, "arprot": 3, "arvalid": 1, "rready": 1,
}  # fmt: skip
_AXIL_OUTPUTS = {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1, "arready": 1, "rdata": 32, "rresp": 2, "rvalid": 1}
_ADDRESS_CHANNEL = {"id": 4, "addr": 40, "len": 8, "size": 3, "burst": 2, "cache": 4, "prot": 3, "valid": 1}


def _axi_inputs(bits: int) -> dict[str, int]:
    read = {"arready": 1, "rid": 4, "rdata": bits, "rresp": 2, "rlast": 1, "rvalid": 1}
    return {"awready": 1, "wready": 1, "bid": 4, "bresp": 2, "bvalid": 1, **read}


def _axi_outputs(bits: int) -> dict[str, int]:
    addresses = {channel + name: width for channel in ("aw", "ar") for name, width in _ADDRESS_CHANNEL.items()}
    return {**addresses, "wdata": bits, "wstrb": bits // 8, "wlast": 1, "wvalid": 1, "rready": 1, "bready": 1}


def _prefixed(prefix: str, ports: Mapping[str, int]) -> dict[str, int]:
    return {f"{prefix}_{name}": width for name, width in ports.items()}


def wrapper(top: str, *, axi_bits: int, engines: int) -> str:
    """Verilog of module `WRAPPER`, which has the ports of `top` under the same names."""
    inputs = {**_prefixed("s_axil", _AXIL_INPUTS), **_prefixed("m_axi", _axi_inputs(axi_bits))}
    outputs = {**_prefixed("s_axil", _AXIL_OUTPUTS), **_prefixed("m_axi", _axi_outputs(axi_bits)), "irq": 1}
    if engines:
        flags = {"begin": engines, "end": engines, "begin_index": 16 * engines, "end_index": 16 * engines}
        outputs |= _prefixed("trace", flags)
    ports = [f"input [{width - 1}:0] {name}" for name, width in inputs.items()]
    ports += [f"output [{width - 1}:0] {name}" for name, width in outputs.items()]
    connections = [f".{name}(held_{name})" for name in ("rst", *inputs)] + [f".{name}({name})" for name in outputs]
    lines = [
        f"module {WRAPPER}(input clk, input rst, {', '.join(ports)});",
        "reg held_rst;",
        "always @(posedge clk) held_rst <= rst;",
        *(f"reg [{width - 1}:0] held_{name};" for name, width in inputs.items()),
        "always @(negedge clk) begin",
        *(f"held_{name} <= {name};" for name in inputs),
        "end",
        f"{top} dut (.clk(clk), {', '.join(connections)});",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"
