"""Elements, beats and bytes of dataflow streams."""

from headrace.isa import DType

__all__ = ["SOURCES", "beat_bytes", "element_bits", "stream_bytes", "stream_elements"]

_BITS = {DType.I4: 4, DType.I8: 8, DType.U8: 8, DType.KA: 8, DType.I16: 16, DType.BF16: 16, DType.B32: 32}

SOURCES = tuple(d for d in DType if d != DType.KA)


def element_bits(dtype: int) -> int:
    """Bits from an element of a beat to the next."""
    return _BITS[DType(dtype)]


def beat_bytes(dtype: int, lanes: int) -> int:
    """Whole bytes of a beat of so many lanes."""
    return -(-lanes * element_bits(dtype) // 8)


def stream_bytes(dtype: int, elements: int, lanes: int) -> int:
    """Bytes of consecutive elements; every beat starts in a byte of its own, which matters for I4 and odd `lanes`."""
    beats, rest = divmod(elements, lanes)
    return beats * beat_bytes(dtype, lanes) + beat_bytes(dtype, rest)


def stream_elements(dtype: int, size: int, lanes: int) -> int:
    """Most elements that lie in so many bytes."""
    beats, rest = divmod(size, beat_bytes(dtype, lanes))
    return beats * lanes + min(lanes, rest * 8 // element_bits(dtype))
