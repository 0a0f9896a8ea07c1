"""Small odd machines, on which random programs find what ordinary sizes hide."""

from headrace.config import MACHINES, ConfigError, NpuConfig

__all__ = ["ODD", "find"]

KIB = 1024

ODD: dict[str, NpuConfig] = {
    c.name: c
    for c in (
        # One of everything: no parallelism, bursts of a beat.
        NpuConfig(
            name="one", rows=1, cols=1, lanes=2, accs=1, columns=1, vector_lanes=1, axi_bits=32,
            spad_bytes=4 * KIB, ring_bytes=16 * 4, gasket_beats=1, contexts=16, column_words=64, burst_beats=1,
            outstanding=1, queue_depth=1, kc_words=4, float_sum=True,
        ),
        # Depthwise mode with two taps and two halves of a word; group scales that span four entries.
        NpuConfig(
            name="five", rows=5, cols=2, lanes=2, accs=5, columns=5, vector_lanes=5, axi_bits=64,
            spad_bytes=5 * 4 * 256, ring_bytes=32 * 8, gasket_beats=25, contexts=3, column_words=300, burst_beats=2,
            outstanding=5, queue_depth=3, kc_words=7, multiplier="dsp",
        ),
        # Depthwise mode with words as wide as an n tile; one context; a narrow bus.
        NpuConfig(
            name="plain", rows=3, cols=8, lanes=4, accs=3, columns=4, vector_lanes=3, axi_bits=32,
            spad_bytes=3 * 8 * 256, ring_bytes=16 * 64, gasket_beats=27, contexts=1, column_words=40, burst_beats=4,
            outstanding=2, queue_depth=2, kc_words=16,
        ),
        # Depthwise mode with four taps, an odd number of accumulators; tables in column memories.
        NpuConfig(
            name="pair", rows=2, cols=4, lanes=4, accs=5, columns=3, vector_lanes=4, axi_bits=128,
            spad_bytes=2 * 8 * 512, ring_bytes=16 * 32, gasket_beats=12, contexts=5, column_words=512, burst_beats=8,
            outstanding=3, queue_depth=1, kc_words=5, float_sum=True, multiplier="dsp",
        ),
        # Group scales at full rate; entries that do not fill their last beat.
        NpuConfig(
            name="scaled", rows=2, cols=3, lanes=8, accs=4, columns=5, vector_lanes=2, axi_bits=128,
            spad_bytes=2 * 16 * 256, ring_bytes=32 * 48, gasket_beats=16, contexts=8, column_words=260, burst_beats=4,
            outstanding=4, queue_depth=4, kc_words=9, float_sum=True,
        ),
        # A bus wider than four words; depthwise mode with five taps; two dataflow columns.
        NpuConfig(
            name="wide", rows=3, cols=8, lanes=8, accs=2, columns=2, vector_lanes=3, axi_bits=512,
            spad_bytes=3 * 16 * 256, ring_bytes=16 * 128, gasket_beats=18, contexts=8, column_words=64, burst_beats=2,
            outstanding=2, queue_depth=2, kc_words=32, multiplier="dsp",
        ),
        # Entries with the scales of two groups.
        NpuConfig(
            name="groups", rows=1, cols=5, lanes=16, accs=5, columns=4, vector_lanes=5, axi_bits=64,
            spad_bytes=32 * 128, ring_bytes=8 * 160, gasket_beats=5, contexts=6, column_words=300, burst_beats=16,
            outstanding=16, queue_depth=3, kc_words=12,
        ),
        # Words of eight beats; one accumulator.
        NpuConfig(
            name="slow", rows=5, cols=1, lanes=16, accs=1, columns=3, vector_lanes=1, axi_bits=32,
            spad_bytes=5 * 32 * 64, ring_bytes=8 * 32, gasket_beats=5, contexts=8, column_words=256, burst_beats=8,
            outstanding=1, queue_depth=4, kc_words=3, float_sum=True, multiplier="dsp",
        ),
        # Machines edge and m2 with fewer rows and columns and small memories.
        NpuConfig(
            name="edge-slice", rows=2, cols=8, lanes=8, accs=4, columns=8, vector_lanes=8, axi_bits=256,
            spad_bytes=2 * 16 * 512, ring_bytes=64 * 128, gasket_beats=8, column_words=256, float_sum=True,
        ),
        NpuConfig(
            name="m2-slice", rows=2, cols=16, lanes=16, accs=4, columns=4, vector_lanes=16, axi_bits=512,
            spad_bytes=2 * 32 * 512, ring_bytes=32 * 512, gasket_beats=16, column_words=256, float_sum=True,
        ),
    )
}  # fmt: skip


def find(name: str) -> NpuConfig:
    """A named or an odd machine.

    Raises:
        ConfigError: for an unknown name, listing those that exist.
    """
    machines = MACHINES | ODD
    if name not in machines:
        raise ConfigError(f"unknown machine {name!r}; choose one of {', '.join(machines)}")
    return machines[name]
