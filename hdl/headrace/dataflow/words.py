"""From the bytes of a beat to the scratchpad words that hold them."""

from amaranth.hdl import Module, Mux, Shape, ShapeLike, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.dataflow.beat import coordinates_layout
from headrace.dataflow.elements import beat_bytes
from headrace.isa import DType
from headrace.memory.view import ViewAddress

__all__ = ["WordSequence", "most_words", "request_layout", "rotate_bytes", "word_layout"]


ADDRESS_BITS = 26


def most_words(*, lanes: int, word_bytes: int) -> int:
    """Words that a beat of 32-bit elements may touch."""
    return (word_bytes - 1 + 4 * lanes + word_bytes - 1) // word_bytes


def request_layout(*, lanes: int, user: ShapeLike) -> data.StructLayout:
    """`lanes` elements at consecutive channel bytes of one pixel of a view, with something that follows them."""
    return data.StructLayout({"at": coordinates_layout(), "lanes": Shape.cast(range(lanes + 1)), "user": user})


def word_layout(*, banks: int, word_bytes: int, lanes: int, user: ShapeLike) -> data.StructLayout:
    """Word `number` of a beat of `lanes` elements of `type` in `bytes` bytes. offset: byte of the first word where the
    beat begins; last: of the beat.

    addr is not cut to the bank. empty: the beat has no bytes, or those of the beat before, and this is not an access.
    bad: the address is not in the scratchpad.
    """
    return data.StructLayout(
        {
            "bank": index_bits(banks),
            "addr": ADDRESS_BITS,
            "number": Shape.cast(range(most_words(lanes=lanes, word_bytes=word_bytes))),
            "offset": index_bits(word_bytes),
            "lanes": Shape.cast(range(lanes + 1)),
            "type": DType,
            "bytes": range(4 * lanes + 1),
            "last": 1,
            "empty": 1,
            "bad": 1,
            "user": user,
        }
    )


def rotate_bytes(m: Module, name: str, word: Value, amount: Signal, *, left: bool) -> Signal:
    """`word` rotated by `amount` bytes; its size is a power of two of bytes."""
    value = word
    for bit in range(len(amount)):
        bits = 8 << bit
        rotated = Signal(len(word), name=f"{name}_{bit}")
        turned = value.rotate_left(bits) if left else value.rotate_right(bits)
        m.d.comb += rotated.eq(Mux(amount[bit], turned, value))
        value = rotated
    return value


class WordSequence(wiring.Component):
    """Turns each request into its words, one a cycle, in order; a request without lanes gives one `empty` word, and
    with `repeats` one that equals the request before, user included, too.

    Three register stages; the first word of a request appears `LATENCY` cycles after it was taken, and a request of one
    word is taken every cycle.
    """

    LATENCY = 3

    def __init__(
        self, *, banks: int, words: int, word_bytes: int, lanes: int, user: ShapeLike, repeats: bool = False
    ) -> None:
        self._banks, self._words, self._word_bytes, self._lanes = banks, words, word_bytes, lanes
        self._repeats = repeats
        self._request = request_layout(lanes=lanes, user=user)
        self._word = word_layout(banks=banks, word_bytes=word_bytes, lanes=lanes, user=user)
        self._most = most_words(lanes=lanes, word_bytes=word_bytes)
        super().__init__({"i": In(stream.Signature(self._request)), "o": Out(stream.Signature(self._word))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid_1, valid_2 = Signal(), Signal()
        move_1, move_2, move_3 = Signal(), Signal(), Signal()
        o = self.o.payload
        m.d.comb += [
            move_3.eq(~self.o.valid | (self.o.ready & o.last)),
            move_2.eq(~valid_2 | move_3),
            move_1.eq(~valid_1 | move_2),
            self.i.ready.eq(move_1),
        ]

        request = Signal(self._request)
        plane_offset = Signal(24)
        with m.If(move_1):
            m.d.sync += [valid_1.eq(self.i.valid), request.eq(self.i.payload)]
            m.d.sync += plane_offset.eq(self._plane_offset(m))

        first, count = Signal(self._word), Signal(range(self._most + 1))
        plane = Signal(16)
        repeated = Signal()
        if self._repeats:
            previous, known = Signal(self._request), Signal()
            m.d.comb += repeated.eq(known & (request.as_value() == previous.as_value()))
            with m.If(valid_1 & move_2):
                m.d.sync += [previous.eq(request), known.eq(1)]
        word, words = self._first_word(m, request, plane_offset, repeated)
        with m.If(move_2):
            m.d.sync += [valid_2.eq(valid_1), first.eq(word), count.eq(words), plane.eq(request.at.view.plane)]

        left, step, following = Signal.like(count), Signal(16), Signal(ADDRESS_BITS)
        m.d.comb += following.eq(o.addr + step)
        with m.If(move_3):
            m.d.sync += [self.o.valid.eq(valid_2), left.eq(count), step.eq(plane)]
            m.d.sync += [field.eq(first[name]) for name, field in self._fields(o)]
            m.d.sync += o.last.eq(count <= 1)
        with m.Elif(self.o.ready):
            m.d.sync += [
                left.eq(left - 1),
                o.addr.eq(following),
                o.number.eq(o.number + 1),
                o.bad.eq(o.bad | (following >= self._words)),
                o.last.eq(left == 2),
            ]
        return m

    def _fields(self, o: data.View) -> list[tuple[str, Value]]:
        """Fields of a word that are taken over as they are."""
        return [(name, getattr(o, name)) for name, _ in self._word if name != "last"]

    def _plane_offset(self, m: Module) -> Signal:
        """Plane number times words between planes, at least 2**24 - 1 where it would not fit; negative planes too."""
        at = self.i.payload.at
        number = Signal(signed(len(at.channel)))
        product = Signal(signed(len(at.channel) + 17))
        offset = Signal(24)
        m.d.comb += [
            number.eq(at.channel >> (self._word_bytes.bit_length() - 1)),
            product.eq(number * at.view.plane),
            offset.eq(Mux(product[24:].any(), 0xFF_FFFF, product[:24])),
        ]
        return offset

    def _first_word(
        self, m: Module, request: data.View, plane_offset: Signal, repeated: Signal
    ) -> tuple[data.View, Signal]:
        """First word of the registered request and the number of words it takes."""
        at = request.at
        m.submodules.view = view = ViewAddress(banks=self._banks, words=self._words)
        word, words = Signal(self._word), Signal(range(self._most + 1))
        size = beat_bytes(m, at.view.type, request.lanes, most=self._lanes)
        end = Signal(range(self._most * self._word_bytes + 1))
        fits, empty = Signal(), Signal()
        offset = Signal(index_bits(self._word_bytes))
        spare = at.pixel[view.PIXEL_BITS - 1 :]
        m.d.comb += [
            fits.eq(spare.all() | ~spare.any()),
            view.pixel.eq(at.pixel),
            view.shift.eq(at.view.shift),
            view.base.eq(at.view.base),
            view.plane_offset.eq(plane_offset),
            word.bank.eq(view.bank),
            word.addr.eq(view.word),
            offset.eq(at.channel),
            word.offset.eq(offset),
            empty.eq((request.lanes == 0) | repeated),
            word.lanes.eq(request.lanes),
            word.type.eq(at.view.type),
            word.bytes.eq(size),
            word.empty.eq(empty),
            word.bad.eq(~empty & (view.overflow | ~fits)),
            word.user.eq(request.user),
            end.eq(size + offset + (self._word_bytes - 1)),
            words.eq(Mux(empty, 1, end >> (self._word_bytes.bit_length() - 1))),
        ]
        return word, words
