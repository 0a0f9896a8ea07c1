"""What cocotb may see of a machine."""

import random
from itertools import islice

import pytest

from headrace_sim.bench.build import control_file
from headrace_sim.rtl import Design

VERILOG = """
module top(a, b, clk, rst);
endmodule
module top_cell(x, clk, rst);
endmodule
"""


def test_only_ports_are_public() -> None:
    lines = control_file(Design(verilog=VERILOG, top="top", axi_bits=32, classes=("top_cell",))).splitlines()
    assert lines[0] == "`verilator_config"
    assert [line for line in lines if "public_flat_rw" in line] == [
        f'public_flat_rw -module "top" -var "{port}"' for port in ("a", "b", "clk", "rst")
    ]
    assert 'no_inline -module "top_cell"' in lines


def test_missing_top_is_named() -> None:
    with pytest.raises(ValueError, match="other"):
        control_file(Design(verilog=VERILOG, top="other", axi_bits=32))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_stalls_vary() -> None:
    """Pauses come in bursts, and are neither never nor always."""
    axi = pytest.importorskip("headrace_sim.bench.axi")
    pauses = list(islice(axi.stalls(random.Random(1), 0.4), 5000))
    assert 0.2 < sum(pauses) / len(pauses) < 0.6
