"""The machine: control, AXI ports, memories, MAC array and dataflow array, wired together."""

from math import gcd
from typing import Any

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from headrace.config import NpuConfig
from headrace.control.axil import AxiLite
from headrace.control.control import ENGINES, Control
from headrace.dataflow.array import DataflowArray
from headrace.mac.engine import MacEngine
from headrace.memory.axi import AxiMaster, join
from headrace.memory.axi_reader import AxiReader
from headrace.memory.axi_writer import AxiWriter
from headrace.memory.load import LoadEngine
from headrace.memory.ring import WeightRing
from headrace.memory.scratchpad import Scratchpad
from headrace.memory.store import StoreEngine
from headrace.memory.weight import WeightEngine

__all__ = ["Npu"]


class Npu(wiring.Component):
    """A complete machine.

    Ports:
        s_axil: registers (AXI4-Lite, 12-bit byte address, 32-bit data).
        m_axi: DDR (AXI4, INCR bursts, one ID).
        irq: level, IRQ_STATUS and IRQ_ENABLE.
        trace_begin, trace_end: bit e: engine e (order of `Engine`) has been given, has completed a command, whose index
            is in 16 bits of trace_begin_index, trace_end_index.
    """

    def __init__(self, *, config: NpuConfig) -> None:
        self._config = config
        super().__init__(
            {
                "s_axil": In(AxiLite()),
                "m_axi": Out(AxiMaster(data_bytes=config.axi_bytes)),
                "irq": Out(1),
                "trace_begin": Out(len(ENGINES)),
                "trace_end": Out(len(ENGINES)),
                "trace_begin_index": Out(16 * len(ENGINES)),
                "trace_end_index": Out(16 * len(ENGINES)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        c = self._config
        spad = {"banks": c.rows, "words": c.bank_words, "word_bytes": c.word_bytes}
        array = {"rows": c.rows, "cols": c.cols, "accs": c.accs}
        bus = {"axi_bytes": c.axi_bytes, "outstanding": c.outstanding}
        # Largest power of two, at most 8, that divides both a word of a column memory and a beat.
        load_elements = gcd(c.vector_lanes, c.axi_bytes // 4, 8)

        m.submodules.control = control = Control(config=c)
        reader = AxiReader(**bus, windows=c.windows)
        writer = AxiWriter(**bus, burst_beats=c.burst_beats, windows=c.windows)
        scratchpad = Scratchpad(**spad)
        ring = WeightRing(
            cols=c.cols,
            word_bytes=c.word_bytes,
            entries=c.ring_entries,
            axi_bytes=c.axi_bytes,
            groups=c.entry_groups,
            scale_beats=c.scale_beats,
        )
        load = LoadEngine(
            **bus,
            **spad,
            burst_beats=c.burst_beats,
            data_beats=8 * c.burst_beats,
            column_elements=c.columns * c.column_words * c.vector_lanes,
            context_elements=c.columns * c.contexts * 4,
            kc_elements=c.kc_words * -(-c.cols // 8),
            load_elements=load_elements,
        )
        weight = WeightEngine(
            **bus,
            burst_beats=c.burst_beats,
            entries=c.ring_entries,
            entry_beats=c.entry_beats,
            scale_beats=c.scale_beats,
        )
        store = StoreEngine(**bus, **spad, burst_beats=c.burst_beats)
        mac = MacEngine(
            **array,
            lanes=c.lanes,
            bank_words=c.bank_words,
            ring_entries=c.ring_entries,
            groups=c.entry_groups,
            kc_words=c.kc_words,
            multiplier=c.multiplier,
            taps=c.depthwise_taps,
            halves=c.halves,
        )
        dataflow = DataflowArray(
            **array,
            columns=c.columns,
            sum_column=c.sum_column,
            lanes=c.vector_lanes,
            halves=c.halves if c.depthwise_taps else 0,
            contexts=c.contexts,
            column_words=c.column_words,
            load_elements=load_elements,
            gasket_beats=c.gasket_beats,
            words=c.bank_words,
            word_bytes=c.word_bytes,
        )
        blocks: dict[str, wiring.Component] = {
            "reader": reader,
            "writer": writer,
            "scratchpad": scratchpad,
            "ring": ring,
            "load": load,
            "weight": weight,
            "store": store,
            "mac": mac,
        }
        for name, block in blocks.items():
            m.submodules[name] = ResetInserter(control.flush)(block)
        m.submodules.dataflow = dataflow

        self._host(m, control)
        self._bus(m, control, reader, writer)
        self._memories(m, scratchpad, ring, load, weight, store, mac, dataflow)
        for name, engine in (("load", load), ("weight", weight), ("store", store), ("mac", mac)):
            connect(m, getattr(control, name), engine.port)
        connect(m, control.epilogue, dataflow.epilogue)
        connect(m, control.vector, dataflow.vector)
        connect(m, load.bus, reader.load)
        connect(m, weight.bus, reader.weight)
        connect(m, store.bus, writer.store)
        m.d.comb += dataflow.clear.eq(control.flush)
        self._events(m, control, reader, writer, scratchpad, weight, store, mac, dataflow)
        return m

    def _host(self, m: Module, control: Control) -> None:
        connect(m, flipped(self.s_axil), control.axil)
        m.d.comb += self.irq.eq(control.irq)
        for name in ("trace_begin", "trace_end", "trace_begin_index", "trace_end_index"):
            m.d.comb += getattr(self, name).eq(getattr(control, name))

    def _bus(self, m: Module, control: Control, reader: AxiReader, writer: AxiWriter) -> None:
        join(m, self.m_axi, [reader.axi, writer.axi])
        connect(m, control.fetch, reader.fetch)
        for part in (reader, writer):
            m.d.comb += [part.windows.eq(control.windows), part.halt.eq(control.halt)]
        m.d.comb += [
            control.reader_idle.eq(reader.idle),
            control.writer_idle.eq(writer.idle),
            control.fetch_error.eq(reader.fetch_error),
            control.load_error.eq(reader.load_error),
            control.weight_error.eq(reader.weight_error),
            control.store_error.eq(writer.store_error),
        ]

    def _memories(
        self, m: Module, scratchpad: Scratchpad, ring: WeightRing, load: LoadEngine, weight: WeightEngine,
        store: StoreEngine, mac: MacEngine, dataflow: DataflowArray,
    ) -> None:  # fmt: skip
        for bank, port in zip(mac.banks, scratchpad.mac):
            connect(m, bank, port)
        connect(m, dataflow.x, scratchpad.x)
        connect(m, dataflow.y, scratchpad.y)
        connect(m, store.spad, scratchpad.store)
        connect(m, dataflow.write, scratchpad.dataflow)
        connect(m, load.spad, scratchpad.load)
        connect(m, load.column, dataflow.load)
        connect(m, load.kc, mac.kc)
        connect(m, weight.ring, ring.write)
        connect(m, mac.ring, ring.read)
        connect(m, dataflow.accumulators, mac.drain)

    def _events(
        self, m: Module, control: Control, reader: AxiReader, writer: AxiWriter, scratchpad: Scratchpad,
        weight: WeightEngine, store: StoreEngine, mac: MacEngine, dataflow: DataflowArray,
    ) -> None:  # fmt: skip
        streams, full, quiet = weight.port.busy, weight.ring.free == 0, ~reader.beat & ~writer.beat
        events: dict[str, Any] = {
            "mac_active": mac.mac_active,
            "read_beats": reader.beat,
            "write_beats": writer.beat,
            "mac_wait_weight": mac.wait_weight,
            "mac_wait_act": mac.wait_act,
            "mac_wait_acc": mac.wait_acc,
            "store_wait_bus": store.wait_bus,
            "load_wait_spad": scratchpad.load_wait,
            "dataflow_beats": dataflow.beat,
            "bus_idle_ring": quiet & streams & full,
            "bus_idle_weight": quiet & ~streams,
            "bus_idle_memory": quiet & streams & ~full,
        }
        m.d.comb += [getattr(control.events, name).eq(event) for name, event in events.items()]
        moved = [reader.beat, writer.beat, mac.mac_active, dataflow.beat, scratchpad.load.req.valid]
        m.d.comb += control.progress.eq(sum(moved[1:], moved[0]) != 0)
