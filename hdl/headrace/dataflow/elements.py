"""Element types of streams: their sizes, and how bytes become lanes and lanes become bytes."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data

from headrace.isa import DType

__all__ = ["Conversion", "beat_bytes", "element_bytes", "narrow", "valid_lanes", "widen"]

# What the integer sinks add to a lane, and the smallest and largest code of I8, I4 and U8 as the command gives them.
Conversion = data.StructLayout({"zp": signed(8), "lo": signed(8), "hi": signed(8)})


def element_bytes(elements: Value, kind: Value) -> Value:
    """Bytes of an even number of elements of type `kind`."""
    half = (kind == DType.I16) | (kind == DType.BF16)
    wide = Mux(kind == DType.B32, elements << 2, Mux(half, elements << 1, elements))
    return Mux(kind == DType.I4, elements >> 1, wide)


def beat_bytes(m: Module, kind: Value, lanes: Value, *, most: int) -> Signal:
    """Bytes that `lanes` of `most` elements occupy; a KA beat occupies the one it addresses, unless it is empty."""
    size = Signal(range(4 * most + 1))
    with m.Switch(kind):
        with m.Case(DType.B32):
            m.d.comb += size.eq(lanes << 2)
        with m.Case(DType.I16, DType.BF16):
            m.d.comb += size.eq(lanes << 1)
        with m.Case(DType.I4):
            m.d.comb += size.eq((lanes + 1) >> 1)
        with m.Case(DType.KA):
            m.d.comb += size.eq(lanes != 0)
        with m.Default():
            m.d.comb += size.eq(lanes)
    return size


def valid_lanes(m: Module, lanes: Value, *, most: int) -> Signal:
    """Bit l: lane l of `most` is one of the first `lanes`."""
    valid = Signal(most)
    m.d.comb += [valid[lane].eq(lanes > lane) for lane in range(most)]
    return valid


def widen(m: Module, when: Value, kind: Value, beat: Sequence[Value], valid: Signal, to: Value) -> None:
    """Assign 32 bits of `to` for each lane from the bytes of `beat`; 0 for lanes that are not valid, or not `when`."""
    for lane in range(len(valid)):
        out = to[32 * lane : 32 * (lane + 1)]
        nibble, byte = beat[lane // 2][4 * (lane % 2) :][:4], beat[lane]
        half, word = Cat(beat[2 * lane : 2 * lane + 2]), Cat(beat[4 * lane : 4 * lane + 4])
        with m.If(when & valid[lane]), m.Switch(kind):
            with m.Case(DType.I8):
                m.d.comb += out.eq(byte.as_signed())
            with m.Case(DType.U8):
                m.d.comb += out.eq(byte)
            with m.Case(DType.I4):
                m.d.comb += out.eq(nibble.as_signed())
            with m.Case(DType.I16):
                m.d.comb += out.eq(half.as_signed())
            with m.Case(DType.BF16):
                m.d.comb += out.eq(Cat(Const(0, 16), half))
            with m.Default():
                m.d.comb += out.eq(word)


def narrow(m: Module, when: Value, kind: Value, conversion: data.View, x: data.View, valid: Signal) -> Signal:
    """Bytes of the lanes `x` as elements of type `kind` from byte 0 on, in 4 bytes a lane, while `when`; bytes beyond
    have no meaning. Lanes of a KA beat are not changed."""
    low, high = _bounds(m, kind, conversion)
    count = len(valid)
    out = Signal(32 * count)
    codes = [Signal(16, name=f"code_{lane}") for lane in range(count)]
    for lane, code in enumerate(codes):
        total = Signal(signed(33), name=f"total_{lane}")
        with m.If(when):
            m.d.comb += [
                total.eq(x[lane].as_signed() + conversion.zp),
                code.eq(Mux(total > high, high, Mux(total < low, low, total))),
            ]
            with m.If(kind == DType.BF16):
                m.d.comb += code.eq(_bf16(x[lane]))
    with m.If(when), m.Switch(kind):
        with m.Case(DType.I8, DType.U8):
            m.d.comb += [out[8 * lane : 8 * lane + 8].eq(code) for lane, code in enumerate(codes)]
        with m.Case(DType.I4):
            # Only the second nibble of a byte can be that of a lane which is not valid in a byte that is written.
            masked = [code if lane % 2 == 0 else Mux(valid[lane], code, 0) for lane, code in enumerate(codes)]
            m.d.comb += [out[4 * lane : 4 * lane + 4].eq(code) for lane, code in enumerate(masked)]
        with m.Case(DType.I16, DType.BF16):
            m.d.comb += [out[16 * lane : 16 * lane + 16].eq(code) for lane, code in enumerate(codes)]
        with m.Default():
            m.d.comb += out.eq(x)
    return out


def _bounds(m: Module, kind: Value, conversion: data.View) -> tuple[Signal, Signal]:
    """Smallest and largest code: min(max(x, lo), hi) is `hi` if lo > hi, so the smallest is never above it."""
    lo, low, high = (Signal(signed(16), name=name) for name in ("lo", "low", "high"))
    m.d.comb += [lo.eq(conversion.lo), high.eq(conversion.hi), low.eq(Mux(lo > high, high, lo))]
    with m.Switch(kind):
        with m.Case(DType.U8):
            m.d.comb += [lo.eq(conversion.lo.as_unsigned()), high.eq(conversion.hi.as_unsigned())]
        with m.Case(DType.I16):
            m.d.comb += [lo.eq(-(1 << 15)), high.eq((1 << 15) - 1)]
    return low, high


def _bf16(x: Value) -> Value:
    """fp32 bits rounded to nearest even; a NaN becomes 0x7FC0, a subnormal number a zero of its sign."""
    ones, fraction = x[23:31] == 0xFF, x[0:23] != 0
    rounded = x[16:32] + (x[15] & (x[16] | (x[0:15] != 0)))
    finite = Mux(x[23:31] == 0, Cat(Const(0, 15), x[31]), rounded[:16])
    return Mux(ones & fraction, 0x7FC0, finite)
