"""The commands once more, as plain loops over Python integers, written from the loop nests of their descriptions."""

import math
import struct
from dataclasses import dataclass, field
from typing import Any

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, Reduce, Source
from headrace.isa.assembler import Program
from headrace_sim.golden import GoldenMachine, RunResult

RING = 0
DATA = 0x10000

Fields = dict[str, int]


def fields_of(name: str, **given: Any) -> Fields:
    """Every field of a command, defaults included."""
    program = Program()
    program.append(name, **given)
    return program[0][1]


def run(m: GoldenMachine, *commands: tuple[str, dict[str, Any]]) -> RunResult:
    """Execute commands and an END of value 7."""
    program = Program()
    for name, given in commands:
        program.append(name, **given)
    program.append("END", value=7)
    m.write_ddr(RING, program.image())
    return m.run(RING, len(program))


def run_ok(m: GoldenMachine, *commands: tuple[str, dict[str, Any]]) -> None:
    result = run(m, *commands)
    assert result.error is None, result
    assert result.end_value == 7


def place(c: NpuConfig, f: Fields, prefix: str, pixel: int, byte: int) -> tuple[int, int, int]:
    """Bank, address and byte of channel byte `byte` of `pixel` of a view, both counted from the view's first."""
    p, b, s = pixel + f[prefix + "p0"], byte + f[prefix + "c0"], 1 << f[prefix + "shift"]
    assert p >= 0
    addr = f[prefix + "base"] + b // c.word_bytes * f[prefix + "plane"] + p // (s * c.rows) * s + p % s
    assert addr < c.bank_words
    return (p // s) % c.rows, addr, b % c.word_bytes


def signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def read_element(c: NpuConfig, spad: Any, f: Fields, prefix: str, pixel: int, byte: int) -> int:
    if f[prefix + "type"] == 0:
        return signed(int(spad[place(c, f, prefix, pixel, byte)]), 8)
    return signed(sum(int(spad[place(c, f, prefix, pixel, byte + i)]) << 8 * i for i in range(4)), 32)


def write_element(c: NpuConfig, spad: Any, f: Fields, prefix: str, pixel: int, byte: int, x: int) -> None:
    """The sink."""
    if f[prefix + "type"] == 0:
        spad[place(c, f, prefix, pixel, byte)] = min(max(x + f["zp"], f["lo"]), f["hi"]) & 255
    else:
        for i in range(4):
            spad[place(c, f, prefix, pixel, byte + i)] = x >> 8 * i & 255


def size(f: Fields, prefix: str) -> int:
    return 4 if f[prefix + "type"] else 1


def walk(f: Fields) -> list[tuple[int, int, int]]:
    """(DDR address, pixel, channel byte), the latter two counted from the view's first, in order."""
    return [
        (
            f["ddr"] + i1 * f["s1"] + i2 * f["s2"] + i3 * f["s3"] + j,
            i1 * f["d1"] + i2 * f["d2"] + i3 * f["d3"] + j // f["pix_bytes"],
            j % f["pix_bytes"],
        )
        for i3 in range(f["n3"])
        for i2 in range(f["n2"])
        for i1 in range(f["n1"])
        for j in range(f["n0"])
    ]


@dataclass
class Beat:
    """One beat; key is whatever the test wants to carry along."""

    x: list[int]
    y: list[int]
    idx: int
    key: Any = None
    lanes: list[bool] = field(default_factory=list)


def floating(bits: int) -> float:
    bits &= 0xFFFFFFFF
    return struct.unpack("<f", struct.pack("<I", bits if bits & 0x7F800000 else bits & 0x80000000))[0]


def pattern(value: float) -> int:
    if value != value:
        return 0x7FC00000
    try:
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        bits = 0xFF800000 if value < 0 else 0x7F800000
    return signed(bits if bits & 0x7F800000 else bits & 0x80000000, 32)


def _order(value: float, bits: int) -> tuple[float, int]:
    return value, 0 if bits & 0x80000000 else 1


def to_int(value: float) -> int:
    if value != value:
        return 0
    if value in (float("inf"), float("-inf")):
        return 2**31 - 1 if value > 0 else -(2**31)
    return min(max(round(value), -(2**31)), 2**31 - 1)


def float_op(op: DataflowOp, a: int, b: int) -> int:
    p, q = floating(a), floating(b)
    inf = float("inf")
    if op == DataflowOp.FSUB:
        op, q = DataflowOp.FADD, -q
    if op == DataflowOp.FADD:
        return pattern(p + q)
    if op == DataflowOp.FMUL:
        undefined = {abs(p), abs(q)} == {0.0, inf}
        return pattern(float("nan") if undefined else p * q)
    if p != p or q != q:
        return 0x7FC00000
    choose = min if op == DataflowOp.FMIN else max
    return pattern(choose(_order(p, a), _order(q, b))[0]) if p != q else _equal(op, a, b)


def _equal(op: DataflowOp, a: int, b: int) -> int:
    """FMIN, FMAX of equal numbers: the sign of zero decides."""
    values = [pattern(floating(a)), pattern(floating(b))]
    return (min if op == DataflowOp.FMIN else max)(values)


def reciprocal(a: int) -> int:
    """FRCP by its description, in floats that are exact."""
    value = floating(a)
    if value != value:
        return 0x7FC00000
    sign = a & 0x80000000
    if value == 0:
        return signed(sign | 0x7F800000, 32)
    if abs(value) == float("inf"):
        return signed(sign, 32)
    half, exponent = math.frexp(abs(value))  # |a| = 2 half * 2^(exponent - 1)
    table = (241, 216, 195, 178, 164, 152, 141, 132)[math.floor(8 * (2 * half - 1))]
    result = math.ldexp(table / 256, 1 - exponent)
    return signed(sign | (pattern(result) if result >= 2.0**-126 else 0), 32)


def lane(op: DataflowOp, a: int, b: int, sh: int) -> int:
    """One lane operation on signed 32-bit integers."""
    match op:
        case DataflowOp.PASS:
            out = a
        case DataflowOp.IADD:
            out = a + b
        case DataflowOp.ISUB:
            out = a - b
        case DataflowOp.IMUL:
            out = a * b
        case DataflowOp.IMIN:
            out = min(a, b)
        case DataflowOp.IMAX:
            out = max(a, b)
        case DataflowOp.ISHR:
            out = (a + b) >> sh
        case DataflowOp.IDIVR:
            out = (abs(a) * b + (1 << (sh - 1))) >> sh
            out = -out if a < 0 else out
        case DataflowOp.I2F:
            out = pattern(float(a))
        case DataflowOp.F2I:
            out = to_int(floating(a))
        case DataflowOp.F2IC:
            out = min(max(to_int(floating(a)), signed(b, 16)), signed(b >> 16, 16))
        case DataflowOp.IAND:
            out = a & b
        case DataflowOp.IOR:
            out = a | b
        case DataflowOp.IXOR:
            out = a ^ b
        case DataflowOp.ISHL:
            out = a << (b & 31)
        case DataflowOp.FRCP:
            out = reciprocal(a)
        case _:
            out = float_op(op, a, b)
    return signed(out, 32)


def operand(source: int, beat: Beat, memory: Any, context: Fields, lane_number: int) -> int:
    match Source(source):
        case Source.X:
            return beat.x[lane_number]
        case Source.Y:
            return beat.y[lane_number]
        case Source.IMM:
            return signed(context.get("imm", 0), 32)
        case Source.MEM:
            word = context.get("mem_base", 0) + (beat.idx if context.get("mem_index", 0) else 0)
            return int(memory[word][lane_number])


def columns(contexts: list[list[Fields]], memories: Any, beats: list[Beat]) -> list[Beat]:
    """Beats through every column of every context in turn; a context field that is absent is 0."""
    for context in contexts:
        for number, column in enumerate(context):
            beats = one_column(column, memories[number], beats)
    return beats


def one_column(c: Fields, memory: Any, beats: list[Beat]) -> list[Beat]:
    out, count = [], 0
    state: list[int] = []
    for beat in beats:
        result = [
            lane(
                DataflowOp(c.get("op", 0)),
                operand(c.get("a", 0), beat, memory, c, i),
                operand(c.get("b", 0), beat, memory, c, i),
                c.get("sh", 0),
            )
            for i in range(len(beat.x))
        ]
        how = c.get("reduce", 0)
        if how:
            combine = {Reduce.SUM: lambda p, q: signed(p + q, 32), Reduce.MAX: max, Reduce.MIN: min}[Reduce(how)]
            state = result if count == 0 else [combine(p, q) for p, q in zip(state, result)]
            count += 1
            if count < c.get("repeat", 0):
                continue
            result, count = state, 0
        x, y = (beat.x, result) if c.get("dst", 0) else (result, beat.y)
        out.append(Beat(x, y, beat.idx, beat.key, beat.lanes))
    return out
