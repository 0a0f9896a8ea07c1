"""The operator instruction set: every command, every field, one description.

Decoder, assembler, constants and manual are generated from `COMMANDS`.
"""

from enum import IntEnum

from headrace.config import NpuConfig, Precision

from .fields import Command, Engine, Field, pack

__all__ = ["BY_NAME", "BY_OPCODE", "COMMANDS", "DType", "Dest", "ScalarOp"]


class Dest(IntEnum):
    """Where LOAD puts its bytes."""

    SPAD = 0
    COLUMN = 1  # dataflow column memories, flat space of 32-bit elements
    CONTEXT = 2  # dataflow contexts, flat space of 32-bit elements
    KC = 3  # the MAC array's table of group offset shifts, flat space of 32-bit elements


class DType(IntEnum):
    """Element types of a dataflow stream."""

    I8 = 0
    B32 = 1  # 32 bits as they are: int32 or fp32
    U8 = 2
    I4 = 3  # two a byte, the first in bits 3..0
    I16 = 4
    BF16 = 5
    KA = 6  # sink only: the activation shift of the addressed word


GATHER_BITS = 16
"""Most bits of a pixel number that VECTOR takes from stream y."""


class ScalarOp(IntEnum):
    """What SCALAR does."""

    SET = 0  # dst = imm
    ADD = 1  # dst = src + imm


def _accs(config: NpuConfig) -> int:
    return config.accs


def _depthwise(config: NpuConfig) -> int:
    return 1 if config.depthwise_taps else 0


def _header() -> tuple[Field, ...]:
    patch = "bit 0 enable, 5..1 shift, 9..6 register, 14..10 word: payload word += scalar << shift"
    return (
        Field(name="opcode", width=8, doc="which command"),
        Field(name="reserved", width=8, doc="zero", maximum=0),
        Field(name="label", width=16, doc="free for the compiler (the layer, say); no effect"),
        Field(name="wait", width=32, doc="tokens to consume, one of each set bit, before the engine starts"),
        Field(name="signal", width=32, doc="tokens to produce, one of each set bit, when the command has completed"),
        Field(name="patch0", width=16, doc=f"dynamic operand: {patch}"),
        Field(name="patch1", width=16, doc="second dynamic operand, applied after the first"),
    )


def _view(prefix: str, what: str, *, typed: DType | None = None) -> tuple[Field, ...]:
    p = f"{prefix}_" if prefix else ""
    fields = [
        Field(name=f"{p}base", width=16, doc=f"{what}: first word in every bank", maximum=lambda c: c.bank_words - 1),
        Field(name=f"{p}plane", width=16, doc=f"{what}: words between channel planes"),
        Field(name=f"{p}p0", width=20, doc=f"{what}: first pixel"),
        Field(name=f"{p}shift", width=2, doc=f"{what}: log2 of s, the pixels that share a bank"),
    ]
    if typed is not None:
        fields.append(Field(name=f"{p}type", width=4, doc=f"{what}: element type", enum=DType, maximum=typed))
    fields.append(Field(name=f"{p}c0", width=16, doc=f"{what}: first channel byte"))
    return tuple(fields)


def _ddr_walk() -> tuple[Field, ...]:
    return (
        Field(name="ddr", width=40, doc="DDR byte address"),
        Field(name="n0", width=24, doc="bytes of a segment, contiguous in DDR", minimum=1),
        *(Field(name=f"n{i}", width=16, doc=f"count of loop {i}", minimum=1) for i in (1, 2, 3)),
        *(Field(name=f"s{i}", width=32, signed=True, doc=f"DDR stride of loop {i}, bytes") for i in (1, 2, 3)),
        *(Field(name=f"d{i}", width=20, signed=True, doc=f"pixel (or element) stride of loop {i}") for i in (1, 2, 3)),
        *_view("", "scratchpad tensor"),
        Field(name="pix_bytes", width=16, doc="bytes of a segment that belong to one pixel", minimum=1),
    )


_WALK = """\
for i3 < n3: for i2 < n2: for i1 < n1: for j < n0:
    address = ddr + i1*s1 + i2*s2 + i3*s3 + j
    pixel   = p0 + i1*d1 + i2*d2 + i3*d3 + j div pix_bytes
    channel = c0 + j mod pix_bytes
"""

LOAD = Command(
    name="LOAD",
    opcode=1,
    engine=Engine.LOAD,
    doc="DDR to scratchpad, dataflow column memories, contexts or group offset shifts; or fill with a value. "
    "For the latter three n0 is a multiple of 4, ddr and strides too, and 32-bit element number "
    "element + i1*d1 + i2*d2 + i3*d3 + j div 4 of a flat space is written: "
    "COLUMN (column*column_words + word)*L + lane, CONTEXT (context*S + column)*4 + word, "
    "KC word*ceil(C/8) + c div 8, with kc of column c in bits 4*(c mod 8) .. + 2. "
    "Words written in the scratchpad get activation shift 0.",
    loop_nest=_WALK + "    spad[pixel, channel] = fill_value if fill else ddr[address]",
    fields=pack(
        (
            *_header(),
            *_ddr_walk(),
            Field(name="dest", width=2, doc="destination", enum=Dest),
            Field(name="fill", width=1, doc="1: write fill_value (scratchpad only), no DDR access"),
            Field(name="fill_value", width=8, doc="byte to fill with"),
            Field(name="element", width=24, doc="first element for COLUMN, CONTEXT and KC"),
        )
    ),
)

WEIGHT = Command(
    name="WEIGHT",
    opcode=2,
    engine=Engine.WEIGHT,
    doc="Stream weight entries from DDR into the ring, waiting while it is full. `ddr` and `step` are multiples of a "
    "beat. An entry is C columns of 2K bytes, "
    "padded to a beat, then, when `scales` is set, the scales of its G groups: bytes 2(c*G + g) and + 1 are sd and sm "
    "of column c, padded to a beat. Entries without have sd = sm = 0.",
    loop_nest="""\
for i < repeat: for j < outer: for e < entries:
    ring.push(ddr[ddr + j*step + e*entry_bytes ...], tag)""",
    fields=pack(
        (
            *_header(),
            Field(name="ddr", width=40, doc="DDR byte address, aligned to a beat"),
            Field(name="entries", width=24, doc="consecutive entries", minimum=1),
            Field(name="outer", width=16, doc="runs of consecutive entries", minimum=1),
            Field(name="step", width=32, signed=True, doc="DDR bytes from run to run"),
            Field(name="repeat", width=16, doc="times to stream all of them", minimum=1),
            Field(name="scales", width=1, doc="entries carry group scales"),
            Field(name="tag", width=8, doc="checked by the MAC command that consumes the entries"),
        )
    ),
)

STORE = Command(
    name="STORE",
    opcode=3,
    engine=Engine.STORE,
    doc="Scratchpad to DDR.",
    loop_nest=_WALK + "    ddr[address] = spad[pixel, channel]",
    fields=pack((*_header(), *_ddr_walk())),
)

MAC = Command(
    name="MAC",
    opcode=4,
    engine=Engine.MAC,
    doc="Tiles of a matrix product or implicit-GEMM convolution into the accumulators, which the EPILOGUE command "
    "of the same shape drains. Precisions, group scales and the depthwise mode: architecture manual.",
    loop_nest="""\
P = kh * kw * cw words               (fold: kh * ceil(kw / (2K / 4));  order: ky, kx, q)
E = P entries, ceil(P / 2) in A8W4   (depthwise: kh)
for n < n_tiles: for mt < m_tiles:
    for e < E: weights = ring[...]
        for t < (t_last if mt == m_tiles-1 else t_count): for r < R: for each word i of the entry: (ky, kx, q) of i
            m  = mt*t_count*R + (t div I)*R*I + r*I + t mod I          I = 1 << ilv
            iy = (m div out_w)*stride_y - pad_top + ky*dil_y;  ix = (m mod out_w)*stride_x - pad_left + kx*dil_x
            a  = 0 if m >= m_count or i >= P; pad_value if (iy, ix) is outside;
                 else in[in_p0 + iy*in_w + ix, plane q + group offset]
            acc[t][r][c] += sum_j a[j] * weights[c][j]""",
    fields=pack(
        (
            *_header(),
            *_view("in", "input tensor"),
            Field(name="mode", width=2, doc="operand widths", enum=Precision),
            Field(name="fold", width=1, doc="few channels: pixels of 4 bytes, kernel columns folded into the word"),
            Field(name="replay", width=1, doc="entries of an n tile are used again by each of its m tiles"),
            Field(name="hold", width=1, doc="all entries stay in the ring for the next MAC command"),
            Field(name="scales", width=1, doc="group scales and activation shifts apply"),
            Field(name="weight_unsigned", width=1, doc="weight codes are unsigned"),
            Field(name="act_unsigned", width=1, doc="activation codes are unsigned"),
            Field(name="depthwise", width=1, doc="one filter a channel, see below", maximum=_depthwise),
            Field(name="ilv", width=2, doc="log2 of I, the pixel interleave of row groups"),
            Field(name="pad_value", width=8, doc="byte outside the input (its zero point)"),
            Field(name="in_h", width=16, doc="input height", minimum=1),
            Field(name="in_w", width=16, doc="input width and pixel pitch of a row", minimum=1),
            Field(name="out_w", width=16, doc="output width", minimum=1),
            Field(name="m_count", width=24, doc="output pixels", minimum=1),
            Field(name="kh", width=8, doc="kernel height", minimum=1),
            Field(name="kw", width=8, doc="kernel width", minimum=1),
            Field(name="cw", width=12, doc="channel words of 2K bytes reduced over (1 when fold)", minimum=1),
            Field(name="stride_y", width=4, doc="vertical stride", minimum=1),
            Field(name="stride_x", width=4, doc="horizontal stride", minimum=1),
            Field(name="dil_y", width=4, doc="vertical dilation", minimum=1),
            Field(name="dil_x", width=4, doc="horizontal dilation (1 when fold)", minimum=1),
            Field(name="pad_top", width=8, signed=True, doc="rows of padding above; negative skips rows"),
            Field(name="pad_left", width=8, signed=True, doc="columns of padding on the left"),
            Field(name="n_tiles", width=16, doc="groups of C output channels", minimum=1),
            Field(name="m_tiles", width=16, doc="tiles of t_count*R output pixels", minimum=1),
            Field(name="t_count", width=8, doc="row groups of a tile, multiple of I", minimum=1, maximum=_accs),
            Field(name="t_last", width=8, doc="row groups of the last tile, alike", minimum=1, maximum=_accs),
            Field(name="group_tiles", width=16, doc="n tiles of a convolution group; 0: not grouped"),
            Field(name="group_planes", width=16, doc="input planes between groups"),
            Field(name="tag", width=8, doc="must equal the tag of every weight entry consumed"),
            Field(name="kc_base", width=12, doc="word of the table of group offset shifts that n tile 0 uses"),
        )
    ),
)  # fmt: skip

EPILOGUE = Command(
    name="EPILOGUE",
    opcode=5,
    engine=Engine.EPILOGUE,
    doc="Drain accumulator tiles through the dataflow array into the scratchpad; x is the accumulator, y the residual "
    "stream when res_enable. Tile order and pixel order are those of the MAC command.",
    loop_nest="""\
for n < n_tiles: for mt < m_tiles:                                     one pass a tile
    for t < (t_last if mt == m_tiles-1 else t_count): for r < R: for b < ceil(C / L):
        m as in MAC; nothing is written where m >= m_count
        channel = n*C + b*L + l;  lane l is valid when b*L + l < C and (channels == 0 or channel < channels)
        x[l] = acc[t][r][b*L + l];  y[l] = res[res_p0 + m, res_c0 + channel*size] (res_row: res_c0 + l*size)
        idx  = idx_base + n*ceil(C/L) + b
        out[out_p0 + m, out_c0 + channel*size] = clamp(x' + zp, lo, hi)  for valid lanes
depthwise: for t: for r: for h < H: for b, H = 2K/C, accumulator t*H + h, and n*H + h in place of n""",
    fields=pack(
        (
            *_header(),
            *_view("out", "output tensor", typed=DType.KA),
            *_view("res", "residual tensor", typed=DType.BF16),
            Field(name="res_enable", width=1, doc="read the residual as y"),
            Field(name="res_row", width=1, doc="y is the L elements at res_c0, the same for all channels of a pixel"),
            Field(name="ilv", width=2, doc="as in MAC"),
            Field(name="n_tiles", width=16, doc="as in MAC", minimum=1),
            Field(name="m_tiles", width=16, doc="as in MAC", minimum=1),
            Field(name="m_count", width=24, doc="as in MAC", minimum=1),
            Field(name="t_count", width=8, doc="as in MAC", minimum=1, maximum=_accs),
            Field(name="t_last", width=8, doc="as in MAC", minimum=1, maximum=_accs),
            Field(name="channels", width=16, doc="output channels; 0: all"),
            Field(name="depthwise", width=1, doc="as in MAC", maximum=_depthwise),
            Field(name="ctx", width=4, doc="first context", maximum=lambda c: c.contexts - 1),
            Field(name="wraps", width=4, doc="times the pass wraps through the gasket: contexts ctx .. ctx+wraps"),
            Field(name="idx_base", width=16, doc="added to the channel block number: index into column memories"),
            Field(name="zp", width=8, signed=True, doc="integer sinks: zero point added"),
            Field(name="lo", width=8, signed=True, doc="I8, U8, I4 sinks: smallest code"),
            Field(name="hi", width=8, signed=True, doc="I8, U8, I4 sinks: largest code"),
        )
    ),
)

VECTOR = Command(
    name="VECTOR",
    opcode=6,
    engine=Engine.VECTOR,
    doc="One pass of the dataflow array over scratchpad streams x and (y_enable) y into the scratchpad. "
    "Emitted beats are fewer than read beats where a context reduces.",
    loop_nest="""\
for i3 < n3: for i2 < n2: for i1 < n1: for i0 < n0:
    k = i[idx_loop];  idx = idx_base + k + i[idx_loop + 1]*idx_step    (idx_loop == 3: no further loop)
    lane l is valid when channels == 0 or k*L + l < channels
    y[l] = y[y_p0 + sum i*y_dp, y_c0 + sum i*y_dc + l*size]  for valid lanes, else 0
    x[l] = x[x_p0 + sum i*x_dp + y[0] mod 2^x_gather, x_c0 + sum i*x_dc + l*size]  alike
for j2 < m2: for j1 < m1: for j0 < m0:                                  emitted beats; k is that of the beat
    out[o_p0 + sum j*o_dp, o_c0 + sum j*o_dc + l*size] = clamp(x' + zp, lo, hi)  for valid lanes""",
    fields=pack(
        (
            *_header(),
            *_view("x", "stream x", typed=DType.BF16),
            *_view("y", "stream y", typed=DType.BF16),
            *_view("o", "output stream", typed=DType.KA),
            *(Field(name=f"n{i}", width=16, doc=f"count of input loop {i}", minimum=1) for i in range(4)),
            *(
                Field(name=f"{v}_d{k}{i}", width=16, signed=True, doc=f"{w} step of stream {v} in loop {i}")
                for v in "xy"
                for i in range(4)
                for k, w in (("p", "pixel"), ("c", "channel byte"))
            ),
            *(Field(name=f"m{i}", width=16, doc=f"count of output loop {i}", minimum=1) for i in range(3)),
            Field(name="channels", width=16, doc="elements along idx_loop; 0: all lanes valid"),
            *(
                Field(name=f"o_d{k}{i}", width=16, signed=True, doc=f"{w} step of the output in loop {i}")
                for i in range(3)
                for k, w in (("p", "pixel"), ("c", "channel byte"))
            ),
            Field(name="ctx", width=4, doc="first context", maximum=lambda c: c.contexts - 1),
            Field(name="wraps", width=4, doc="times the pass wraps through the gasket: contexts ctx .. ctx+wraps"),
            Field(name="idx_base", width=16, doc="first index into column memories"),
            Field(name="idx_loop", width=2, doc="loop whose counter is the channel block number"),
            Field(name="idx_step", width=12, doc="added to the index in each turn of the loop around idx_loop"),
            Field(name="y_enable", width=1, doc="read stream y; otherwise y is 0"),
            Field(name="zp", width=8, signed=True, doc="integer sinks: zero point added"),
            Field(name="lo", width=8, signed=True, doc="I8, U8, I4 sinks: smallest code"),
            Field(name="hi", width=8, signed=True, doc="I8, U8, I4 sinks: largest code"),
            Field(
                name="x_gather",
                width=5,
                doc="low bits of y's lane 0, as 32 bits, that are added to the pixel of x; counts with y_enable",
                maximum=lambda _: GATHER_BITS,
            ),
        )
    ),
)

SCALAR = Command(
    name="SCALAR",
    opcode=7,
    engine=Engine.CONTROL,
    doc="Write a scalar register, in ring order (at once when its tokens are there).",
    loop_nest="scalar[dst] = imm if op == SET else scalar[src] + imm",
    fields=pack(
        (
            *_header(),
            Field(name="dst", width=4, doc="register written", maximum=lambda c: c.scalars - 1),
            Field(name="src", width=4, doc="register read", maximum=lambda c: c.scalars - 1),
            Field(name="op", width=1, doc="operation", enum=ScalarOp),
            Field(name="imm", width=32, signed=True, doc="immediate"),
        )
    ),
)

END = Command(
    name="END",
    opcode=8,
    engine=Engine.CONTROL,
    doc="Wait until every earlier command has completed, put `value` into END_VALUE and raise the DONE interrupt.",
    loop_nest="wait for all engines idle; END_VALUE = value; IRQ_STATUS.done = 1",
    fields=pack((*_header(), Field(name="value", width=32, doc="for the host to recognise"))),
)

COMMANDS: tuple[Command, ...] = (LOAD, WEIGHT, STORE, MAC, EPILOGUE, VECTOR, SCALAR, END)
BY_NAME: dict[str, Command] = {c.name: c for c in COMMANDS}
BY_OPCODE: dict[int, Command] = {c.opcode: c for c in COMMANDS}
