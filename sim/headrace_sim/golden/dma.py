"""LOAD, STORE and WEIGHT: what moves between DDR and the machine's memories."""

from collections.abc import Mapping

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_NAME, Cause, Dest

from .dataflow import DataflowArray
from .errors import Fault
from .memory import ADDRESS_MASK, Ddr
from .ring import WeightRing
from .scratchpad import Scratchpad, View

__all__ = ["load", "store", "weight"]

Fields = Mapping[str, int]


def _loops(f: Fields, prefix: str) -> np.ndarray:
    """Sum of counter times stride over loops 3, 2, 1: shape [n3, n2, n1]."""
    i3, i2, i1 = (np.arange(f[f"n{k}"], dtype=np.int64) * f[f"{prefix}{k}"] for k in (3, 2, 1))
    return i3[:, None, None] + i2[:, None] + i1


def _starts(f: Fields) -> np.ndarray:
    return (f["ddr"] + _loops(f, "s")) & ADDRESS_MASK


def _positions(f: Fields, pad: Scratchpad, refused: tuple[int, int] | None, starts: np.ndarray) -> np.ndarray:
    """Flat scratchpad positions [n3, n2, n1, n0] of a walk; the first error in walk order, DDR before scratchpad."""
    j = np.arange(f["n0"], dtype=np.int64)
    pixel = _loops(f, "d")[..., None] + j // f["pix_bytes"]
    flat, bad, word = pad.locate_unchecked(View.of(f), pixel, j % f["pix_bytes"])
    first_refused = refused[0] * f["n0"] + refused[1] if refused is not None else flat.size
    if bad is not None and bad.any() and int(np.argmax(bad)) < first_refused:
        raise Fault(Cause.RANGE, int(word.reshape(-1)[np.argmax(bad)]) & 0xFFFFFFFF)
    if refused is not None:
        raise Fault(Cause.WINDOW, int(starts.reshape(-1)[refused[0]]) + refused[1])
    return flat


def load(f: Fields, ddr: Ddr, pad: Scratchpad, dataflow: DataflowArray) -> None:
    """Execute a LOAD command.

    Raises:
        Fault: WINDOW, RANGE, ALIGN (column memories and contexts), MALFORMED (fill of something else than the
            scratchpad).
    """
    if f["fill"]:
        if f["dest"] != Dest.SPAD:
            raise Fault(Cause.MALFORMED, BY_NAME["LOAD"]["fill"].offset)
        pad.flat[_positions(f, pad, None, np.zeros(1))] = f["fill_value"]
        return
    starts = _starts(f)
    if f["dest"] == Dest.SPAD:
        refused = ddr.first_refused(starts, f["n0"], write=False)
        at = _positions(f, pad, refused, starts)
        pad.flat[at] = ddr.gather(starts, f["n0"])
        return
    if any(f[name] % 4 for name in ("ddr", "n0", "s1", "s2", "s3")):
        raise Fault(Cause.ALIGN, f["ddr"])
    refused = ddr.first_refused(starts, f["n0"], write=False)
    if refused is not None:
        raise Fault(Cause.WINDOW, int(starts.reshape(-1)[refused[0]]) + refused[1])
    element = f["element"] + _loops(f, "d")[..., None] + np.arange(f["n0"] // 4)
    data = np.ascontiguousarray(ddr.gather(starts, f["n0"])).view("<u4")
    dataflow.write(element, data, context=f["dest"] == Dest.CONTEXT)


def store(f: Fields, ddr: Ddr, pad: Scratchpad) -> None:
    """Execute a STORE command.

    Raises:
        Fault: WINDOW, RANGE.
    """
    starts = _starts(f)
    at = _positions(f, pad, ddr.first_refused(starts, f["n0"], write=True), starts)
    ddr.scatter(starts, pad.flat[at])


def weight(f: Fields, ddr: Ddr, ring: WeightRing, config: NpuConfig) -> None:
    """Execute a WEIGHT command.

    Raises:
        Fault: ALIGN, WINDOW.
    """
    if f["ddr"] % config.axi_bytes:
        raise Fault(Cause.ALIGN, f["ddr"])
    entry_bytes = config.entry_beats * config.axi_bytes
    size = f["entries"] * entry_bytes
    ddr.require(f["ddr"], size)
    raw = ddr.gather(np.array(f["ddr"]), size).reshape(f["entries"], entry_bytes)
    codes = raw[:, : config.cols * config.word_bytes].reshape(f["entries"], config.cols, config.word_bytes).copy()
    for _ in range(f["repeat"]):
        ring.push(codes, f["tag"])
