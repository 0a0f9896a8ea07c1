"""Contexts of dataflow columns: what one column does to the beats that carry its context number."""

from enum import IntEnum

from .fields import Field, pack

__all__ = [
    "CONTEXT_BITS",
    "CONTEXT_FIELDS",
    "CONTEXT_WORDS",
    "DataflowOp",
    "MemIndex",
    "Reduce",
    "Source",
    "encode_context",
]


class DataflowOp(IntEnum):
    """Lane operations on 32-bit a and b; integers are two's complement, F are fp32 (RNE, subnormals flushed)."""

    PASS = 0  # a
    IADD = 1  # a + b, low 32 bits
    ISUB = 2  # a - b
    IMUL = 3  # low 32 bits of a * b, operands within 25 signed bits
    IMIN = 4
    IMAX = 5
    ISHR = 6  # (a + b) >> sh, arithmetic, the sum exact in 33 bits
    IDIVR = 7  # sign(a) * ((|a| * b + 2^(sh-1)) >> sh), |a| < 2^24, 0 <= b < 2^24, sh >= 1: halves away from zero
    I2F = 8  # fp32(a)
    F2I = 9  # round half to even, saturated to int32, NaN gives 0
    F2IC = 10  # as F2I, then b's low half where that is less, else b's high half where more (signed 16 bits each)
    FADD = 11
    FSUB = 12
    FMUL = 13
    FMIN = 14
    FMAX = 15
    IAND = 16  # a & b
    IOR = 17
    IXOR = 18
    ISHL = 19  # a << (b & 31), low 32 bits
    FRCP = 20  # fp32 1 / a to 11 bits, interpolated, see the architecture manual
    ILT = 21  # -1 if a < b, else 0
    FLT = 22  # -1 if a < b, else 0; -0 equals +0, false with a NaN
    EXP2 = 23  # fp32 2^(a / 2^11) of an integer a, interpolated, see the architecture manual
    FRSQ = 24  # fp32 1 / sqrt(a) to 11 bits, interpolated, see the architecture manual


class Source(IntEnum):
    """Operands of a lane."""

    X = 0  # main stream
    Y = 1  # side stream
    MEM = 2  # the column's memory at mem_base + what mem_index says
    IMM = 3  # the context's immediate, the same in every lane
    IDX = 4  # number of the lane's element: the beat's idx * L + lane


class MemIndex(IntEnum):
    """What is added to mem_base to address the column's memory."""

    NONE = 0
    IDX = 1  # the beat's idx
    X = 2  # each lane's own x, its low 8 bits: a table of 256 elements a lane
    Y = 3  # each lane's own y, its low 8 bits


class Reduce(IntEnum):
    """Reduction over consecutive beats, lane by lane; F are fp32. Codes without a name are NONE."""

    NONE = 0
    SUM = 1
    MAX = 2
    MIN = 3
    FSUM = 4  # over lanes too, in the order of the architecture manual; only in the column that can, elsewhere NONE
    FMAX = 5  # largest pattern in the order of sign and magnitude
    FMIN = 6


CONTEXT_FIELDS: tuple[Field, ...] = pack(
    (
        Field(name="op", width=6, doc="lane operation; codes without a name are PASS", enum=DataflowOp),
        Field(name="a", width=3, doc="operand a; codes without a name are X", enum=Source),
        Field(name="b", width=3, doc="operand b, alike", enum=Source),
        Field(name="dst", width=1, doc="0: the result replaces x, 1: it replaces y; the other passes on"),
        Field(name="reduce", width=3, doc="reduction of the result", enum=Reduce),
        Field(name="row", width=1, doc="a reduction ends with the row; `repeat` is ignored"),
        Field(name="mem_index", width=2, doc="what is added to mem_base", enum=MemIndex),
        Field(name="across", width=1, doc="a reduction also merges the lanes; every lane gets the result"),
        Field(name="sh", width=5, doc="shift of ISHR and IDIVR"),
        Field(name="mem_base", width=12, doc="word of the column's memory"),
        Field(name="repeat", width=16, doc="beats of a reduction: one result every `repeat` beats; 0 counts as 1"),
        Field(name="imm", width=32, doc="immediate"),
    )
)
CONTEXT_WORDS = 4
CONTEXT_BITS = CONTEXT_WORDS * 32


def encode_context(**values: int) -> list[int]:
    """Four 32-bit words of a context; fields not named are zero (a context of zeros passes x and y on).

    Raises:
        ValueError: for an unknown field or a value that does not fit.
    """
    known = {f.name: f for f in CONTEXT_FIELDS}
    word = 0
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"a context has no field {name!r}")
        f = known[name]
        if not -(1 << (f.width - 1)) <= value < 1 << f.width:
            raise ValueError(f"context field {name}: {value} does not fit {f.width} bits")
        word |= (int(value) & ((1 << f.width) - 1)) << f.offset
    return [(word >> (32 * i)) & 0xFFFFFFFF for i in range(CONTEXT_WORDS)]
