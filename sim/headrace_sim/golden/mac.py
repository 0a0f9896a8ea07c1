"""The MAC command: rules between its fields, then its tiles."""

import numpy as np

from headrace.config import NpuConfig, Precision
from headrace.isa import BY_NAME, Cause

from . import products
from .errors import Fault
from .feed import Feed, Words
from .fields import Fields
from .products import Operands
from .ring import Entries, WeightRing
from .scratchpad import Scratchpad
from .tiles import Accumulators, TileShape

__all__ = ["check_rules", "mac"]


def check_rules(f: Fields, config: NpuConfig) -> None:
    """The rules between fields.

    Raises:
        Fault: MALFORMED at the field that the first broken rule names; RANGE with the last word of the table of group
            offset shifts that the command needs.
    """
    precision = Precision(f["mode"])
    halves = config.halves
    spanning = config.lanes < 8 and max(f["t_count"], f["t_last"]) > 1
    rules = [("scales", f["scales"] and (f["fold"] or not config.scaled(precision) or spanning))]
    if f["depthwise"]:
        rules += [
            ("mode", precision is not Precision.A8W8),
            ("fold", f["fold"]),
            ("scales", f["scales"]),
            ("cw", f["cw"] != 1),
            ("group_tiles", f["group_tiles"]),
            ("kw", f["kw"] > config.depthwise_taps),
            ("t_count", f["t_count"] * halves > config.accs),
            ("t_last", f["t_last"] * halves > config.accs),
        ]
    for name, broken in rules:
        if broken:
            raise Fault(Cause.MALFORMED, BY_NAME["MAC"][name].offset)
    if f["scales"] and precision is not Precision.A8W8 and f["kc_base"] + f["n_tiles"] > config.kc_words:
        raise Fault(Cause.RANGE, f["kc_base"] + f["n_tiles"] - 1)


def mac(
    f: Fields, pad: Scratchpad, ring: WeightRing, kc: np.ndarray, accumulators: Accumulators, config: NpuConfig
) -> None:
    """Execute a MAC command; `kc` is the table of group offset shifts, uint32 [kc_words, ceil(C / 8)].

    Raises:
        Fault: MALFORMED, RANGE, RING_TAG, OVERFLOW.
        SequenceError: when weight entries are missing.
    """
    check_rules(f, config)
    shape = TileShape.of(f, config)
    feed = Feed(f, pad, shape, config)
    per_tile = f["kh"] if f["depthwise"] else -(-feed.words // Precision(f["mode"]).words)
    resident = bool(f["hold"] or f["replay"])
    count = shape.n_tiles * per_tile * (1 if resident else shape.m_tiles)
    taken = ring.take(count, f["tag"], hold=bool(f["hold"]))
    entries = taken.reshape(shape.n_tiles, -1, per_tile)  # [n, m or 1, E]
    shifts = _shifts(kc, f["kc_base"], shape.n_tiles, config.cols) if f["scales"] else None
    out = np.zeros((shape.n_tiles, len(shape.pixels), shape.halves, config.cols), np.int32)
    group_tiles = f["group_tiles"] or shape.n_tiles
    for group in range(-(-shape.n_tiles // group_tiles)):
        some = slice(group * group_tiles, min((group + 1) * group_tiles, shape.n_tiles))
        for m_tile, rows in feed.batches(resident=resident):
            words = feed.gather(rows, group)
            if len(words.rows):
                weights = entries[some, 0 if resident else m_tile]
                out[some, words.rows] = _sums(f, words, weights, None if shifts is None else shifts[some], config)
    accumulators.push(out, shape)


def _sums(f: Fields, words: Words, weights: Entries, kc: np.ndarray | None, config: NpuConfig) -> np.ndarray:
    """Sums int32 [n, rows, H, C]."""
    operands = Operands(Precision(f["mode"]), bool(f["act_unsigned"]), bool(f["weight_unsigned"]))
    if f["depthwise"]:
        return products.depthwise(words.data, weights.codes, operands, config, f["kw"])
    if kc is None:
        return products.dense(words.data, weights.codes, operands)[:, :, None]
    scales = products.Scales(words.ka, weights.scales, kc)
    return products.scaled(words.data, weights.codes, scales, operands, config)[:, :, None]


def _shifts(kc: np.ndarray, base: int, n_tiles: int, cols: int) -> np.ndarray:
    """kc of every column of n tiles: int32 [n, C]; rows beyond the table, which only A8W8 may name, are zeros."""
    c = np.arange(cols)
    rows = kc[base : base + n_tiles]
    shifts = (rows[:, c // 8] >> (4 * (c % 8)).astype(np.uint32) & 7).astype(np.int32)
    return np.pad(shifts, ((0, n_tiles - len(rows)), (0, 0)))
