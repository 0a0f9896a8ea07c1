"""Activation scratchpad: one bank a row, two sub-banks a bank, shared by the MAC array and the memory clients."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from headrace.cells import add_cell
from headrace.config import index_bits
from headrace.interfaces import SPAD_LATENCY, SpadBankRead, SpadRead, SpadWrite

from .ram import RamBank

__all__ = ["Scratchpad"]

KA_BITS = 3


class Scratchpad(wiring.Component):
    """`banks` x `words` words of `word_bytes` bytes; the top address bit selects one of two 1R1W sub-banks.

    A sub-bank serves one read and one write a cycle. Priority of reads: mac[bank], x, y, store; of writes: dataflow,
    load.
    `ready` is combinational and says whether the sub-bank is free of clients that go first. Data of a read transferred
    (or of a mac read) in cycle i is on the client's `data` in cycle i + SPAD_LATENCY, and only then. A read transferred
    with a write of the same word returns the old data; later reads return the new.
    Every write also sets the word's activation shift, which the mac ports read beside its data.
    load_wait: LOAD is refused this cycle (for the performance counter).
    """

    LATENCY = SPAD_LATENCY

    def __init__(self, *, banks: int, words: int, word_bytes: int) -> None:
        if words < 4 or words & (words - 1):
            raise ValueError(f"words of a bank must be a power of two of at least 4, not {words}")
        self._banks, self._words, self._word_bytes = banks, words, word_bytes
        read = SpadRead(banks=banks, words=words, word_bytes=word_bytes)
        write = SpadWrite(banks=banks, words=words, word_bytes=word_bytes)
        super().__init__(
            {
                "mac": In(SpadBankRead(words=words, word_bytes=word_bytes)).array(banks),
                "x": In(read),
                "y": In(read),
                "store": In(read),
                "dataflow": In(write),
                "load": In(write),
                "load_wait": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cells = [[self._add_cells(m, bank, sub, platform) for sub in range(2)] for bank in range(self._banks)]
        self._read_priority(m)
        self._write_priority(m)
        for bank in range(self._banks):
            for sub in range(2):
                self._read_port(m, bank, sub, *cells[bank][sub])
                self._write_port(m, bank, sub, *cells[bank][sub])
        words = [word.r_data for pair in cells for word, _ in pair]
        shifts = [shift.r_data for pair in cells for _, shift in pair]
        for bank, port in enumerate(self.mac):
            late = self._delayed(m, port.addr[-1], f"mac{bank}_sub")
            m.d.comb += [
                port.data.eq(Mux(late, words[2 * bank + 1], words[2 * bank])),
                port.ka.eq(Mux(late, shifts[2 * bank + 1], shifts[2 * bank])),
            ]
        for name, client in self._readers():
            late = self._delayed(m, self._sub_bank(client), f"{name}_sub_bank")
            m.d.comb += client.data.eq(data.ArrayLayout(8 * self._word_bytes, len(words))(Cat(words))[late])
        m.d.comb += self.load_wait.eq(self.load.req.valid & ~self.load.req.ready)
        return m

    def _readers(self) -> list[tuple[str, Any]]:
        return [("x", self.x), ("y", self.y), ("store", self.store)]

    def _add_cells(self, m: Module, bank: int, sub: int, platform: object) -> tuple[RamBank, RamBank]:
        """The memories of a sub-bank: words and their activation shifts."""
        words = RamBank(depth=self._words // 2, width=8 * self._word_bytes, granule=8)
        shifts = RamBank(depth=self._words // 2, width=KA_BITS, granule=KA_BITS)
        add_cell(m, f"bank{bank}_{sub}", words, platform)
        add_cell(m, f"shifts{bank}_{sub}", shifts, platform)
        return words, shifts

    def _sub_bank(self, client: Any) -> Value:
        return Cat(client.req.p.addr[-1], client.req.p.bank)

    def _delayed(self, m: Module, value: Value, name: str) -> Signal:
        first = Signal(len(value), name=f"{name}_1")
        second = Signal(len(value), name=f"{name}_2")
        m.d.sync += [first.eq(value), second.eq(first)]
        return second

    def _read_priority(self, m: Module) -> None:
        taken = Signal(2 << index_bits(self._banks))  # sub-banks the MAC array reads
        for bank, port in enumerate(self.mac):
            for sub in range(2):
                m.d.comb += taken[2 * bank + sub].eq(port.en & (port.addr[-1] == sub))
        before: list[Any] = []
        for _, client in self._readers():
            wanted = self._sub_bank(client)
            clash = taken.bit_select(wanted, 1)
            for other in before:
                clash = clash | (other.req.valid & (self._sub_bank(other) == wanted))
            m.d.comb += client.req.ready.eq(~clash)
            before.append(client)

    def _write_priority(self, m: Module) -> None:
        clash = self.dataflow.req.valid & (self._sub_bank(self.dataflow) == self._sub_bank(self.load))
        m.d.comb += [self.dataflow.req.ready.eq(1), self.load.req.ready.eq(~clash)]

    def _read_port(self, m: Module, bank: int, sub: int, words: RamBank, shifts: RamBank) -> None:
        mac = self.mac[bank]
        chosen = mac.en & (mac.addr[-1] == sub)
        enable, address = chosen, mac.addr
        for _, client in self._readers():
            here = client.req.valid & client.req.ready & (self._sub_bank(client) == 2 * bank + sub)
            enable = enable | here
            address = Mux(here, client.req.p.addr, address)
        m.d.comb += [words.r_en.eq(enable), words.r_addr.eq(address)]
        m.d.comb += [shifts.r_en.eq(chosen), shifts.r_addr.eq(mac.addr)]

    def _write_port(self, m: Module, bank: int, sub: int, words: RamBank, shifts: RamBank) -> None:
        ours = self.dataflow.req.valid & (self._sub_bank(self.dataflow) == 2 * bank + sub)
        loads = self.load.req.valid & self.load.req.ready & (self._sub_bank(self.load) == 2 * bank + sub)
        request = Mux(ours, self.dataflow.req.payload, self.load.req.payload)
        chosen = data.View(self.load.req.payload.shape(), request)
        m.d.comb += [
            *(words.w_mask.eq(Mux(ours | loads, chosen.mask, 0)), shifts.w_mask.eq(ours | loads)),
            *(words.w_addr.eq(chosen.addr), shifts.w_addr.eq(chosen.addr)),
            *(words.w_data.eq(chosen.data), shifts.w_data.eq(chosen.ka)),
        ]
