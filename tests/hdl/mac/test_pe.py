"""The PE as a cell: an array's Verilog holds one PE module, with the multipliers that its kind claims."""

from __future__ import annotations

import re

import pytest

from headrace.cells import CellLibrary
from headrace.mac.array import MacArray
from headrace.mac.pe import Pe
from headrace.verilog import emit


def products(text: str, module: str) -> int:
    body = re.search(rf"^module {module}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    return len(re.findall(r"\$signed\(\S+ *\) \* \$signed", body[0]))


@pytest.mark.parametrize("multiplier,lane_products", [("fused", 4), ("dsp", 2)])
def test_an_array_has_one_pe_module(multiplier, lane_products):
    library = CellLibrary("t")
    array = MacArray(rows=2, cols=3, lanes=2, accs=2, multiplier=multiplier, taps=2)
    text = emit(array, "t", library=library)
    assert sorted(name for name, _ in library.modules()) == ["t_activation_sum", "t_pe"]
    assert len(re.findall(r"^ +t_pe \S+ \(", text, re.MULTILINE)) == 6
    assert products(text, "t_pe") == 2 * lane_products


def test_equal_parameters_share_a_module():
    library = CellLibrary("t")
    base = dict(lanes=2, accs=2, multiplier="fused", taps=0)
    others = [base | change for change in (dict(lanes=4), dict(accs=3), dict(multiplier="dsp"), dict(taps=2))]
    for parameters in [base, *others, *others]:
        library.instance(Pe(**parameters))
    assert len(list(library.modules())) == 5
