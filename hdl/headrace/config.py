"""Machine parameters: one frozen, validated description from which every block is built."""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

__all__ = ["MACHINES", "ConfigError", "NpuConfig", "Precision", "index_bits", "machine"]


class ConfigError(ValueError):
    """A machine that cannot work, or a name that does not exist; the message names the parameter and the remedy."""


class Precision(IntEnum):
    """Operand widths of the MAC array."""

    A8W8 = 0
    A8W4 = 1
    A4W4 = 2

    @property
    def rate(self) -> int:
        """Multiply-accumulates a lane does in a cycle."""
        return 1 << self

    @property
    def phases(self) -> int:
        """Cycles a weight entry takes with one row group."""
        return 1 if self is Precision.A4W4 else 2

    @property
    def words(self) -> int:
        """Words of activations a weight entry meets."""
        return 2 if self is Precision.A8W4 else 1


def index_bits(n: int) -> int:
    """Bits of an index into `n` things, never zero, so that no port has zero width."""
    return max(1, (n - 1).bit_length())


def _power_of_two(n: int) -> bool:
    return n > 0 and n & (n - 1) == 0


@dataclass(frozen=True, kw_only=True)
class NpuConfig:
    """Parameters of a machine.

    The same command stream semantics and the same results hold for every configuration; only speed and capacity differ.

    Raises:
        ConfigError: when the parameters cannot work together, naming the reason.
    """

    name: str
    rows: int  # R: PE rows, which are output pixels or tokens
    cols: int  # C: PE columns, which are output channels
    lanes: int  # K: INT8 multiplications of a PE each cycle; a scratchpad word is 2K bytes
    accs: int  # T: row groups that share a weight entry; a PE has 2T accumulators
    columns: int  # S: columns of the dataflow array
    vector_lanes: int  # L: 32-bit lanes of a dataflow column
    axi_bits: int  # width of the AXI4 data bus
    spad_bytes: int  # activation scratchpad
    ring_bytes: int  # weight ring, codes only
    contexts: int = 8  # contexts held by every dataflow column
    column_words: int = 256  # words of L x 32 bits in every dataflow column's memory
    gasket_beats: int = 256  # beats the wrap-around buffer holds: the longest pass that can wrap
    burst_beats: int = 16  # longest AXI burst
    outstanding: int = 16  # read bursts in flight
    queue_depth: int = 4  # commands queued for each engine
    tokens: int = 32  # dependency tokens
    windows: int = 4  # address windows the host opens
    scalars: int = 16  # scalar registers
    kc_words: int = 256  # n tiles whose group offset shifts the MAC array holds
    float_sum: bool = False  # a column can add the fp32 numbers of a row; vector_lanes must be a power of two up to 64
    multiplier: str = "fused"  # how a PE multiplies: "fused", four 4-bit products a lane; "dsp", two FPGA multipliers

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "accs", "columns", "vector_lanes", "contexts", "column_words", "queue_depth"):
            self._require(getattr(self, name) >= 1, f"{name} must be at least 1")
        self._require(_power_of_two(self.lanes) and self.lanes >= 2, "lanes must be a power of two of at least 2")
        self._require(self.axi_bits in (32, 64, 128, 256, 512), "axi_bits must be 32, 64, 128, 256 or 512")
        self._require(_power_of_two(self.burst_beats) and self.burst_beats <= 256, "burst_beats: power of two <= 256")
        self._require(self.burst_beats * self.axi_bytes <= 4096, "a burst must fit 4 KiB")
        self._require(self.tokens <= 32 and self.scalars <= 16, "at most 32 tokens and 16 scalars")
        self._require(self.accs <= 64 and self.contexts <= 16, "at most 64 accumulators and 16 contexts")
        if self.float_sum:
            self._require(
                _power_of_two(self.vector_lanes) and self.vector_lanes <= 64,
                "float_sum needs vector_lanes to be a power of two up to 64",
            )
        self._require(self.multiplier in ("fused", "dsp"), "multiplier must be 'fused' or 'dsp'")
        self._require(1 <= self.kc_words <= 1 << 12, "kc_words must be 1 .. 4,096")
        self._require(self.bank_words >= 16, f"spad_bytes must give every bank 16 words of {self.word_bytes} bytes")
        self._require(_power_of_two(self.bank_words), "spad_bytes / (rows * 2 * lanes) must be a power of two")
        self._require(self.bank_words <= 1 << 16, "a bank holds at most 65,536 words")
        self._require(_power_of_two(self.ring_entries) and self.ring_entries >= 4, "ring must hold 2^n >= 4 entries")
        self._require(self.gasket_beats >= self.accs * self.rows * self.acc_beats, "gasket must hold an epilogue pass")

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            raise ConfigError(f"machine {self.name!r}: {why}")

    @property
    def word_bytes(self) -> int:
        """Bytes of a scratchpad word and of one column's share of a weight entry."""
        return 2 * self.lanes

    @property
    def axi_bytes(self) -> int:
        """Bytes of an AXI beat."""
        return self.axi_bits // 8

    @property
    def bank_words(self) -> int:
        """Words of one scratchpad bank, both sub-banks; the top address bit selects the sub-bank."""
        return self.spad_bytes // (self.rows * self.word_bytes)

    @property
    def ring_entries(self) -> int:
        """Weight entries the ring holds."""
        return self.ring_bytes // (self.cols * self.word_bytes)

    @property
    def entry_beats(self) -> int:
        """AXI beats of a weight entry's codes; an entry starts on a beat."""
        return -(-self.cols * self.word_bytes // self.axi_bytes)

    @property
    def scale_beats(self) -> int:
        """AXI beats of a weight entry's group scales (sd and sm, one byte each a column and group)."""
        return -(-2 * self.cols * self.entry_groups // self.axi_bytes)

    @property
    def entry_groups(self) -> int:
        """Groups of 32 4-bit weights whose scales an entry carries; at least one, even if the group spans entries."""
        return max(1, 4 * self.lanes // 32)

    def scaled(self, precision: Precision) -> bool:
        """Whether the machine can apply group scales: a group must not be smaller than what a phase reduces."""
        return self.lanes <= (8 if precision is Precision.A4W4 else 16)

    @property
    def scaled_accs(self) -> int:
        """Most row groups of a tile with group scales: 1 where a group spans entries (the declared lower rate)."""
        return self.accs if self.lanes >= 8 else 1

    @property
    def halves(self) -> int:
        """n tiles whose channels share a scratchpad word, 0 when words and n tiles do not match."""
        return 0 if self.word_bytes % self.cols else self.word_bytes // self.cols

    @property
    def depthwise_taps(self) -> int:
        """Widest kernel of the array's depthwise mode, 0 when the machine has none."""
        return min(self.lanes, 5) if self.halves in (1, 2) and self.accs >= self.halves else 0

    @property
    def acc_beats(self) -> int:
        """Dataflow beats that drain one row of accumulators: ceil(C / L)."""
        return -(-self.cols // self.vector_lanes)

    @property
    def sum_column(self) -> int | None:
        """The dataflow column that reduces by FSUM: the third, so that two operations fit before it, or the last."""
        return min(2, self.columns - 1) if self.float_sum else None

    @property
    def macs_per_cycle(self) -> int:
        """Peak INT8 multiply-accumulates a cycle."""
        return self.rows * self.cols * self.lanes

    @property
    def drain_reduction(self) -> int:
        """Smallest reduction length at which draining never stalls the array in A8W8: R ceil(C / L) K."""
        return self.rows * self.acc_beats * self.lanes

    def warnings(self) -> list[str]:
        """What will make this machine slow, in sentences; empty when nothing does."""
        out = []
        for precision in Precision:
            shortest = self.drain_reduction * precision.rate
            if shortest > 256 * precision.rate:
                out.append(f"{precision.name} layers with a reduction below {shortest} wait for the accumulator drain")
        if self.scaled_accs < self.accs:
            out.append("group scales span weight entries: tiles with group scales have one row group instead of many")
        if not self.scaled(Precision.A8W4):
            out.append("no group scales: a phase of the array is longer than a group (lanes at most 16)")
        if self.entry_beats > 2 * self.accs:
            out.append("an entry takes longer to fetch than a full tile takes to use it: weights limit every layer")
        return out

    def to_dict(self) -> dict[str, Any]:
        """Every field, for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


KIB = 1024

MACHINES: dict[str, NpuConfig] = {
    c.name: c
    for c in (
        NpuConfig(
            name="base", rows=4, cols=8, lanes=8, accs=16, columns=8, vector_lanes=8,
            axi_bits=128, spad_bytes=256 * KIB, ring_bytes=64 * KIB, contexts=16, queue_depth=8, float_sum=True,
            multiplier="dsp",
        ),
        NpuConfig(
            name="edge", rows=8, cols=16, lanes=8, accs=16, columns=8, vector_lanes=16,
            axi_bits=256, spad_bytes=512 * KIB, ring_bytes=128 * KIB, contexts=16, queue_depth=8, float_sum=True,
        ),
        NpuConfig(
            name="m2", rows=32, cols=32, lanes=16, accs=16, columns=8, vector_lanes=64,
            axi_bits=512, spad_bytes=4096 * KIB, ring_bytes=512 * KIB, gasket_beats=512, contexts=16, queue_depth=8,
            float_sum=True,
        ),
        NpuConfig(
            name="tiny", rows=2, cols=2, lanes=2, accs=4, columns=4, vector_lanes=2,
            axi_bits=32, spad_bytes=8 * KIB, ring_bytes=512, gasket_beats=64, burst_beats=8, outstanding=4,
            float_sum=True,
        ),
        NpuConfig(
            name="odd", rows=1, cols=3, lanes=4, accs=3, columns=3, vector_lanes=2,
            axi_bits=64, spad_bytes=16 * KIB, ring_bytes=1536, gasket_beats=32, burst_beats=4, outstanding=3,
            float_sum=True, multiplier="dsp",
        ),
        NpuConfig(
            name="thin", rows=3, cols=1, lanes=2, accs=2, columns=2, vector_lanes=3,
            axi_bits=64, spad_bytes=12 * KIB, ring_bytes=256, gasket_beats=32, burst_beats=16, outstanding=2,
        ),
    )
}  # fmt: skip


def machine(name: str) -> NpuConfig:
    """The named machine.

    Raises:
        ConfigError: for an unknown name, listing those that exist.
    """
    if name not in MACHINES:
        raise ConfigError(f"unknown machine {name!r}; choose one of {', '.join(MACHINES)}")
    return MACHINES[name]
