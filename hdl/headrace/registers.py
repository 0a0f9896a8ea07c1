"""The machine's registers as the host sees them, on the AXI4-Lite slave."""

from enum import IntEnum

from headrace.config import NpuConfig
from headrace.isa.fields import COMMAND_BYTES
from headrace.regmap import Access, Reg, RegField, RegMap

__all__ = [
    "COMMAND_SET_VERSION",
    "COUNTERS",
    "ID_VALUE",
    "MAX_WINDOWS",
    "REGISTERS",
    "VERSION_VALUE",
    "State",
    "counter_offset",
    "identity",
    "register_map",
]

ID_VALUE = 0x48445243
VERSION_VALUE = 1 << 16  # major 1, minor 0
COMMAND_SET_VERSION = 2
MAX_WINDOWS = 8
MAX_SCALARS = 16
PAGE_BITS = 28  # 4 KiB pages of a 40-bit address


class State(IntEnum):
    """STATUS.state."""

    IDLE = 0
    RUN = 1
    DRAIN = 2
    HALTED = 3


COUNTERS: tuple[tuple[str, str], ...] = (
    ("CYCLES", "cycles in state RUN: from doorbell to END or error"),
    ("MAC_ACTIVE", "cycles in which the MAC array computes a product"),
    ("READ_BEATS", "AXI read data beats"),
    ("WRITE_BEATS", "AXI write data beats"),
    ("BUSY_LOAD", "cycles with a LOAD command in progress"),
    ("BUSY_WEIGHT", "cycles with a WEIGHT command in progress"),
    ("BUSY_STORE", "cycles with a STORE command in progress"),
    ("BUSY_MAC", "cycles with a MAC command in progress"),
    ("BUSY_EPILOGUE", "cycles with an EPILOGUE command in progress"),
    ("BUSY_VECTOR", "cycles with a VECTOR command in progress"),
    ("MAC_WAIT_WEIGHT", "cycles the MAC array waits for a weight entry"),
    ("MAC_WAIT_ACT", "cycles the MAC array waits for activations"),
    ("MAC_WAIT_ACC", "cycles the MAC array waits for an accumulator buffer"),
    ("STORE_WAIT_BUS", "cycles STORE waits for the bus"),
    ("LOAD_WAIT_SPAD", "cycles LOAD waits for a scratchpad write port"),
    ("DATAFLOW_BEATS", "beats that enter the dataflow array"),
    ("BUS_IDLE_RING", "cycles without a beat in which WEIGHT waits for the ring to have room"),
    ("BUS_IDLE_WEIGHT", "cycles without a beat in which no WEIGHT command is in progress"),
    ("BUS_IDLE_MEMORY", "cycles without a beat in which WEIGHT waits for memory"),
)
"""Event counters, 64 bits each: name and meaning, in the order of their registers."""


def counter_offset(index: int) -> int:
    """Register offset of the low half of counter `index`; the high half follows."""
    return 0x200 + 8 * index


def _whole(doc: str, width: int = 32) -> tuple[RegField, ...]:
    return (RegField(name="value", lsb=0, width=width, doc=doc),)


def _bytes(*names: tuple[str, str], width: int = 8) -> tuple[RegField, ...]:
    return tuple(RegField(name=n, lsb=i * width, width=width, doc=doc) for i, (n, doc) in enumerate(names))


def _bits(*names: tuple[str, str]) -> tuple[RegField, ...]:
    return _bytes(*names, width=1)


def _ro(offset: int, name: str, doc: str, *fields: RegField) -> Reg:
    return Reg(name=name, offset=offset, access=Access.RO, doc=doc, fields=fields or _whole(doc))


def _rw(offset: int, name: str, doc: str, *fields: RegField, hardware: bool = False) -> Reg:
    return Reg(name=name, offset=offset, access=Access.RW, doc=doc, fields=fields or _whole(doc), hardware=hardware)


_IDENTITY = (
    _ro(0x000, "ID", '"HDRC"'),
    _ro(0x004, "VERSION", "version of the machine", *_bytes(("minor", "minor"), ("major", "major"), width=16)),
    _ro(
        0x008,
        "CAP_ARRAY",
        "MAC array",
        *_bytes(("rows", "R"), ("cols", "C"), ("lanes", "K"), ("accs", "T, row groups of a tile")),
    ),
    _ro(
        0x00C,
        "CAP_DATAFLOW",
        "dataflow array and bus",
        *_bytes(
            ("columns", "S"),
            ("vector_lanes", "L"),
            ("contexts", "contexts"),
            ("axi_log2", "log2 of the bytes of a beat"),
        ),
    ),
    _ro(
        0x010,
        "CAP_MEMORY",
        "memories",
        *_bytes(("spad_kib", "scratchpad, KiB"), ("ring_entries", "weight ring, entries"), width=16),
    ),
    _ro(
        0x014,
        "CAP_ISA",
        "command set",
        *_bytes(("command_bytes", "bytes of a command"), ("version", "version of the command set"), width=16),
    ),
)

_RUN = (
    Reg(
        name="CONTROL",
        offset=0x020,
        access=Access.W1,
        doc="actions",
        fields=_bits(
            ("reset", "stop if running, forget everything queued, return to IDLE; scalar registers stay"),
            ("abort", "stop with cause ABORT"),
            ("snapshot", "copy all counters into their registers in one cycle"),
            ("clear", "set all counters to zero (the registers keep the last snapshot)"),
        ),
    ),
    _ro(0x024, "STATUS", "state", RegField(name="state", lsb=0, width=2, doc="0 IDLE, 1 RUN, 2 DRAIN, 3 HALTED")),
    Reg(
        name="IRQ_STATUS",
        offset=0x028,
        access=Access.W1C,
        doc="interrupts",
        fields=_bits(("done", "an END command completed"), ("error", "the machine halted")),
    ),
    _rw(
        0x02C,
        "IRQ_ENABLE",
        "interrupts that drive the interrupt pin",
        *_bits(("done", "as in IRQ_STATUS"), ("error", "as in IRQ_STATUS")),
    ),
    _rw(
        0x030,
        "RING_BASE_LO",
        "DDR address of the command ring, low half",
        RegField(name="address", lsb=7, width=25, doc="bits 31..7, the ring is aligned to a command"),
    ),
    _rw(
        0x034,
        "RING_BASE_HI",
        "DDR address of the command ring, high half",
        RegField(name="address", lsb=0, width=8, doc="bits 39..32"),
    ),
    _rw(
        0x038,
        "RING_SIZE",
        "size of the command ring",
        RegField(name="log2", lsb=0, width=4, doc="log2 of its commands, 0..15"),
    ),
    _ro(0x03C, "RING_HEAD", "commands fetched", *_whole("free-running", 16)),
    _rw(
        0x040,
        "RING_TAIL",
        "commands written by the host; advancing it starts the machine",
        *_whole("free-running", 16),
        hardware=True,
    ),
    _rw(0x044, "WATCHDOG", "cycles without progress after which the machine stops; 0 is off"),
    _ro(0x048, "END_VALUE", "value of the last END command"),
    _ro(0x050, "ERR_CAUSE", "why the machine stopped", RegField(name="cause", lsb=0, width=4, doc="`Cause`")),
    _ro(0x054, "ERR_INDEX", "command concerned, counted from 0 since the last reset", *_whole("modulo 65,536", 16)),
    _ro(0x058, "ERR_ENGINE", "engine concerned", RegField(name="engine", lsb=0, width=3, doc="`Engine`")),
    _ro(0x05C, "ERR_ADDRESS_LO", "address concerned, low half"),
    _ro(0x060, "ERR_ADDRESS_HI", "address concerned, high half", *_whole("bits 39..32", 8)),
)


def _window(i: int) -> tuple[Reg, ...]:
    at = 0x080 + 16 * i
    return (
        _rw(at, f"WINDOW{i}_BASE", f"window {i}: first 4 KiB page", *_whole("page number", PAGE_BITS)),
        _rw(at + 4, f"WINDOW{i}_LIMIT", f"window {i}: first page beyond", *_whole("page number", PAGE_BITS)),
        _rw(
            at + 8,
            f"WINDOW{i}_FLAGS",
            f"window {i}: what it allows",
            *_bits(("read", "reads"), ("write", "writes")),
        ),
    )


def _counter(i: int, name: str, doc: str) -> tuple[Reg, ...]:
    at = counter_offset(i)
    return (_ro(at, f"{name}_LO", f"{doc}; bits 31..0"), _ro(at + 4, f"{name}_HI", f"{doc}; bits 63..32"))


def register_map(*, windows: int, scalars: int) -> RegMap:
    """Registers of a machine with that many address windows (at most 8) and scalar registers (at most 16)."""
    if not (1 <= windows <= MAX_WINDOWS and 1 <= scalars <= MAX_SCALARS):
        raise ValueError(f"{windows} windows and {scalars} scalars do not fit the address map")
    return RegMap(
        "headrace",
        (
            *_IDENTITY,
            *_RUN,
            *(reg for i in range(windows) for reg in _window(i)),
            *(_rw(0x100 + 4 * i, f"SCALAR{i}", f"scalar register {i}", hardware=True) for i in range(scalars)),
            *(reg for i, (name, doc) in enumerate(COUNTERS) for reg in _counter(i, name, doc)),
        ),
    )


REGISTERS = register_map(windows=4, scalars=16)
"""Registers of every named machine."""


def identity(config: NpuConfig) -> dict[str, int]:
    """Values of the identification and capability registers of a machine."""
    fields = {
        "CAP_ARRAY": {"rows": config.rows, "cols": config.cols, "lanes": config.lanes, "accs": config.accs},
        "CAP_DATAFLOW": {
            "columns": config.columns,
            "vector_lanes": config.vector_lanes,
            "contexts": config.contexts,
            "axi_log2": config.axi_bytes.bit_length() - 1,
        },
        "CAP_MEMORY": {"spad_kib": config.spad_bytes // 1024, "ring_entries": config.ring_entries},
        "CAP_ISA": {"command_bytes": COMMAND_BYTES, "version": COMMAND_SET_VERSION},
    }
    values = {"ID": ID_VALUE, "VERSION": VERSION_VALUE}
    for name, parts in fields.items():
        values[name] = sum(value << REGISTERS[name][part].lsb for part, value in parts.items())
    return values
