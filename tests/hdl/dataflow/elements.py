"""Element types in plain Python, written from the contract."""

from fractions import Fraction

from headrace.isa import DType


def beat_size(kind: int, lanes: int) -> int:
    """Bytes of a beat of `lanes` elements, at least one of which is valid."""
    match DType(kind):
        case DType.I4:
            return (lanes + 1) // 2
        case DType.I16 | DType.BF16:
            return 2 * lanes
        case DType.B32:
            return 4 * lanes
        case DType.KA:
            return 0
    return lanes


def decode(kind: int, raw: bytes, lanes: int) -> list[int]:
    """32 bits of each of the first `lanes` elements of `raw`."""
    out = []
    for lane in range(lanes):
        match DType(kind):
            case DType.I8:
                value = int.from_bytes(raw[lane : lane + 1], "little", signed=True)
            case DType.U8:
                value = raw[lane]
            case DType.I4:
                value = raw[lane // 2] >> 4 * (lane % 2) & 15
                value -= 16 * (value >> 3)
            case DType.I16:
                value = int.from_bytes(raw[2 * lane : 2 * lane + 2], "little", signed=True)
            case DType.BF16:
                value = int.from_bytes(raw[2 * lane : 2 * lane + 2], "little") << 16
            case _:
                value = int.from_bytes(raw[4 * lane : 4 * lane + 4], "little")
        out.append(value & 0xFFFFFFFF)
    return out


def encode(kind: int, values: list[int], *, zp: int = 0, lo: int = 0, hi: int = 0) -> bytes:
    """Bytes of the lanes `values` (32 bits each), all of them valid."""
    codes = []
    for bits in values:
        value = bits - (bits >> 31 << 32)
        match DType(kind):
            case DType.I8 | DType.I4:
                code = min(max(value + zp, lo), hi)
            case DType.U8:
                code = min(max(value + zp, lo % 256), hi % 256)
            case DType.I16:
                code = min(max(value + zp, -(1 << 15)), (1 << 15) - 1)
            case DType.BF16:
                code = _bf16(bits)
            case _:
                code = value
        codes.append(code)
    if kind == DType.I4:
        pairs = [*codes, 0] if len(codes) % 2 else codes
        return bytes(low & 15 | (high & 15) << 4 for low, high in zip(pairs[::2], pairs[1::2]))
    size = beat_size(kind, 1)
    return b"".join((code & (1 << 8 * size) - 1).to_bytes(size, "little") for code in codes)


def _bf16(bits: int) -> int:
    sign, magnitude = bits >> 31 << 15, bits & 0x7FFFFFFF
    if magnitude > 0x7F800000:
        return 0x7FC0
    if magnitude < 0x00800000:
        return sign
    return sign | round(Fraction(magnitude, 1 << 16))  # Python rounds halves to even
