"""The commands once more, as plain loops over Python integers, written from the loop nests of their descriptions."""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from headrace.config import NpuConfig
from headrace.isa import DataflowOp, DType, MemIndex, Reduce, Source
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


SIZES = {DType.I8: 1, DType.U8: 1, DType.KA: 1, DType.I16: 2, DType.BF16: 2, DType.B32: 4}


def start(f: Fields, prefix: str, element: int) -> int:
    """Channel byte of the beat of an EPILOGUE command whose first element is `element`."""
    dtype = DType(f[prefix + "type"])
    return element // 2 if dtype == DType.I4 else element * SIZES[dtype]


def read_lane(c: NpuConfig, spad: Any, f: Fields, prefix: str, pixel: int, byte: int, lane_number: int) -> int:
    """The source: a lane of the beat that starts at channel byte `byte`."""
    dtype = DType(f[prefix + "type"])
    if dtype == DType.I4:
        pair = int(spad[place(c, f, prefix, pixel, byte + lane_number // 2)])
        return signed(pair >> 4 * (lane_number % 2), 4)
    size = SIZES[dtype]
    at = byte + lane_number * size
    raw = sum(int(spad[place(c, f, prefix, pixel, at + i)]) << 8 * i for i in range(size))
    if dtype == DType.BF16:
        return signed(raw << 16, 32)
    return raw if dtype == DType.U8 else signed(raw, 8 * size)


def bf16(bits: int) -> int:
    """The BF16 sink: nearest even, by the distance to both neighbours."""
    bits &= 0xFFFFFFFF
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FC0
    if bits & 0x7F800000 == 0:
        return bits >> 16 & 0x8000
    low, rest = divmod(bits, 1 << 16)
    up = rest > 0x8000 or (rest == 0x8000 and low % 2 == 1)
    return low + up


def sink(f: Fields, dtype: DType, x: int) -> int:
    """What is stored of x, in its low bits."""
    match dtype:
        case DType.I8 | DType.I4:
            return min(max(x + f["zp"], f["lo"]), f["hi"])
        case DType.U8:
            return min(max(x + f["zp"], f["lo"] % 256), f["hi"] % 256)
        case DType.I16:
            return min(max(x + f["zp"], -32768), 32767)
        case DType.BF16:
            return bf16(x)
    return x


def write_beat(c: NpuConfig, pad: Any, f: Fields, prefix: str, pixel: int, byte: int, beat: "Beat") -> None:
    """The sink of a beat that starts at channel byte `byte`; `pad` has `data` and `ka`."""
    dtype = DType(f[prefix + "type"])
    if not any(beat.lanes):
        return
    if dtype == DType.KA:
        pad.ka[place(c, f, prefix, pixel, byte)[:2]] = beat.x[0] & 7
        return
    stored: dict[int, int] = {}  # byte to value
    for i, x in enumerate(beat.x):
        if not beat.lanes[i]:
            continue
        value = sink(f, dtype, x)
        if dtype == DType.I4:
            at = byte + i // 2
            stored[at] = stored.get(at, 0) | (value & 15) << 4 * (i % 2)
        else:
            size = SIZES[dtype]
            stored |= {byte + i * size + j: value >> 8 * j & 255 for j in range(size)}
    for at, value in stored.items():
        bank, addr, column = place(c, f, prefix, pixel, at)
        pad.data[bank, addr, column] = value
        pad.ka[bank, addr] = 0


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
    ends: bool = False


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


def line(m: float, intervals: int, f: Callable[[float], float]) -> int:
    """256 times f, rounded at the ends of the interval of 1..2 in which m lies, straight in 256 steps between them."""
    steps = math.floor((m - 1) * intervals * 256)
    interval, rest = divmod(steps, 256)
    left, right = (round(f(1 + (interval + i) / intervals)) for i in (0, 1))
    return left * 256 - (left - right) * rest


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
    result = math.ldexp(line(2 * half, 32, lambda m: 65536 / m), 1 - exponent - 24)
    return signed(sign | (pattern(result) if result >= 2.0**-126 else 0), 32)


def exponential(a: int) -> int:
    """EXP2 by its description; every step is exact in floats."""
    n, i, r = a >> 11, (a >> 8) & 7, a & 255
    table = [round(256 * 2 ** (k / 8)) for k in range(9)]
    if n < -126 or n > 127:
        return 0 if n < 0 else 0x7F800000
    return pattern(math.ldexp(table[i] * 256 + (table[i + 1] - table[i]) * r, n - 16))


def reciprocal_root(a: int) -> int:
    """FRSQ by its description, in floats that are exact."""
    value = floating(a)
    if value == 0:
        return 0x7F800000
    if value != value or value < 0:
        return 0x7FC00000
    if value == float("inf"):
        return 0
    half, exponent = math.frexp(value)  # a = 2 half * 2^(exponent - 1)
    odd = (exponent - 1) % 2
    mantissa = line(2 * half, 16, lambda m: 65536 / math.sqrt(2 * m if odd else m))
    return pattern(math.ldexp(mantissa, -((exponent - 1 - odd) // 2) - 24))


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
            out, low = to_int(floating(a)), signed(b, 16)
            out = low if out < low else min(out, signed(b >> 16, 16))
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
        case DataflowOp.ILT:
            out = -1 if a < b else 0
        case DataflowOp.FLT:
            out = -1 if floating(a) < floating(b) else 0
        case DataflowOp.EXP2:
            out = exponential(a)
        case DataflowOp.FRSQ:
            out = reciprocal_root(a)
        case _:
            out = float_op(op, a, b)
    return signed(out, 32)


def operand(source: int, beat: Beat, memory: Any, context: Fields, lane_number: int) -> int:
    match source if source in list(Source) else Source.X:
        case Source.X:
            return beat.x[lane_number]
        case Source.Y:
            return beat.y[lane_number]
        case Source.IMM:
            return signed(context.get("imm", 0), 32)
        case Source.MEM:
            index = {
                MemIndex.NONE: 0,
                MemIndex.IDX: beat.idx,
                MemIndex.X: beat.x[lane_number] & 255,
                MemIndex.Y: beat.y[lane_number] & 255,
            }[MemIndex(context.get("mem_index", 0))]
            return int(memory[context.get("mem_base", 0) + index][lane_number])
        case Source.IDX:
            return beat.idx * len(beat.x) + lane_number


def columns(
    contexts: list[list[Fields]], memories: Any, beats: list[Beat], sum_column: int | None = None
) -> list[Beat]:
    """Beats through every column of every context in turn; a context field that is absent is 0."""
    for context in contexts:
        for number, column in enumerate(context):
            beats = one_column(column, memories[number], beats, sums=number == sum_column)
    return beats


def order(bits: int) -> tuple[bool, int]:
    """Sorts patterns by sign and magnitude."""
    magnitude = bits & 0x7FFFFFFF
    return (bits >= 0, magnitude if bits >= 0 else -magnitude)


COMBINE = {
    Reduce.SUM: lambda p, q: signed(p + q, 32),
    Reduce.MAX: max,
    Reduce.MIN: min,
    Reduce.FSUM: lambda p, q: lane(DataflowOp.FADD, p, q, 0),
    Reduce.FMAX: lambda p, q: max(p, q, key=order),
    Reduce.FMIN: lambda p, q: min(p, q, key=order),
}
IDENTITY = {
    Reduce.SUM: 0, Reduce.MAX: -(2**31), Reduce.MIN: 2**31 - 1,
    Reduce.FSUM: 0, Reduce.FMAX: -1, Reduce.FMIN: 2**31 - 1,
}  # fmt: skip


def tree(values: list[int]) -> int:
    """Sum of a power of two numbers, neighbours first."""
    middle = len(values) // 2
    return values[0] if middle == 0 else lane(DataflowOp.FADD, tree(values[:middle]), tree(values[middle:]), 0)


def ordered_sum(elements: list[int]) -> int:
    partials = [0] * 8
    for block in range(-(-len(elements) // 32)):
        part = (elements[32 * block : 32 * block + 32] + [0] * 32)[:32]
        partials[block % 8] = lane(DataflowOp.FADD, partials[block % 8], tree(part), 0)
    return tree(partials)


def one_column(c: Fields, memory: Any, beats: list[Beat], *, sums: bool = False) -> list[Beat]:
    out, count = [], 0
    elements: list[int] = []
    state: list[int] = []
    code = c.get("op", 0)
    op = DataflowOp(code) if code <= DataflowOp.FRSQ else DataflowOp.PASS
    for beat in beats:
        result = [
            lane(
                op,
                operand(c.get("a", 0), beat, memory, c, i),
                operand(c.get("b", 0), beat, memory, c, i),
                c.get("sh", 0),
            )
            for i in range(len(beat.x))
        ]
        how, lanes = Reduce(c.get("reduce", 0) % 7), beat.lanes  # 7 has no name
        if how == Reduce.FSUM and not sums:
            how = Reduce.NONE
        if how:
            across = c.get("across", 0) or how == Reduce.FSUM
            if across:
                result = [v if valid else IDENTITY[how] for v, valid in zip(result, lanes)]
            state = result if count == 0 else [COMBINE[how](p, q) for p, q in zip(state, result)]
            elements += result
            count += 1
            if not beat.ends if c.get("row", 0) else count < c.get("repeat", 0):
                continue
            result, count = state, 0
            if across:
                total = ordered_sum(elements) if how == Reduce.FSUM else reduce(COMBINE[how], state)
                result = [total] * len(state)
                lanes = [True] * len(state)
            elements = []
        x, y = (beat.x, result) if c.get("dst", 0) else (result, beat.y)
        out.append(Beat(x, y, beat.idx, beat.key, lanes, beat.ends))
    return out
