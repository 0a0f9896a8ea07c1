"""The register description and the rules it must obey."""

import pytest

from headrace.config import MACHINES
from headrace.registers import COUNTERS, REGISTERS, counter_offset, identity, register_map
from headrace.regmap import Access, Reg, RegField, RegMap


def _reg(name: str, offset: int, *spans: tuple[int, int], access: Access = Access.RW, hardware: bool = False) -> Reg:
    fields = tuple(RegField(name=f"f{i}", lsb=lsb, width=width, doc="") for i, (lsb, width) in enumerate(spans))
    return Reg(name=name, offset=offset, access=access, doc="", fields=fields, hardware=hardware)


@pytest.mark.parametrize(
    "regs",
    [
        (_reg("A", 0, (0, 1)), _reg("A", 4, (0, 1))),
        (_reg("A", 0, (0, 1)), _reg("B", 0, (0, 1))),
        (_reg("A", 2, (0, 1)),),
        (_reg("A", 4096, (0, 1)),),
        (_reg("A", 0, (0, 8), (7, 2)),),
        (_reg("A", 0, (30, 3)),),
        (_reg("A", 0),),
        (_reg("A", 0, (0, 1), access=Access.RO, hardware=True),),
    ],
)
def test_inconsistent_maps_are_refused(regs: tuple[Reg, ...]) -> None:
    with pytest.raises(ValueError, match="test"):
        RegMap("test", regs)


def test_offsets_of_the_contract() -> None:
    expected = {
        "ID": 0, "CAP_ISA": 0x14, "CONTROL": 0x20, "STATUS": 0x24, "IRQ_STATUS": 0x28, "IRQ_ENABLE": 0x2C,
        "RING_BASE_LO": 0x30, "RING_BASE_HI": 0x34, "RING_SIZE": 0x38, "RING_HEAD": 0x3C, "RING_TAIL": 0x40,
        "WATCHDOG": 0x44, "END_VALUE": 0x48, "ERR_CAUSE": 0x50, "ERR_INDEX": 0x54, "ERR_ENGINE": 0x58,
        "ERR_ADDRESS_LO": 0x5C, "ERR_ADDRESS_HI": 0x60, "WINDOW0_BASE": 0x80, "WINDOW3_FLAGS": 0xB8,
        "SCALAR15": 0x13C, "CYCLES_LO": 0x200, "DATAFLOW_BEATS_HI": 0x27C, "BUS_IDLE_MEMORY_HI": 0x294,
    }  # fmt: skip
    assert {name: REGISTERS[name].offset for name in expected} == expected
    assert counter_offset(len(COUNTERS) - 1) + 4 == 0x294


@pytest.mark.parametrize("config", MACHINES.values(), ids=str)
def test_identity_fits_the_registers(config) -> None:
    regs = register_map(windows=config.windows, scalars=config.scalars)
    for name, value in identity(config).items():
        assert value & ~regs[name].mask == 0
    assert identity(config)["CAP_ARRAY"] == (config.rows | config.cols << 8 | config.lanes << 16 | config.accs << 24)
