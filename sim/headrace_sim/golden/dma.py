"""LOAD, STORE and WEIGHT: what moves between DDR and the machine's memories."""

from collections.abc import Mapping

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import BY_NAME, Cause, Dest

from .errors import Fault
from .fields import Fields
from .memory import ADDRESS_MASK, Ddr
from .ring import Entries, WeightRing
from .scratchpad import Scratchpad, View

__all__ = ["load", "store", "weight"]


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
    flat, bad, word = pad.geometry.locate(View.of(f), pixel, j % f["pix_bytes"])
    first_refused = refused[0] * f["n0"] + refused[1] if refused is not None else flat.size
    if bad is not None and bad.any() and int(np.argmax(bad)) < first_refused:
        raise Fault(Cause.RANGE, int(word.reshape(-1)[np.argmax(bad)]) & 0xFFFFFFFF)
    if refused is not None:
        raise Fault(Cause.WINDOW, int(starts.reshape(-1)[refused[0]]) + refused[1])
    return flat


def _write_elements(target: np.ndarray, element: np.ndarray, data: np.ndarray) -> None:
    """Write 32-bit `data` at flat element numbers of `target`.

    Raises:
        Fault: RANGE with the first element number that does not exist.
    """
    flat = target.reshape(-1)
    bad = (element < 0) | (element >= len(flat))
    if bad.any():
        raise Fault(Cause.RANGE, int(element[bad][0]) & 0xFFFFFFFF)
    flat[element] = data.astype(np.uint32).view(flat.dtype)


def load(f: Fields, ddr: Ddr, pad: Scratchpad, tables: Mapping[Dest, np.ndarray]) -> None:
    """Execute a LOAD command; `tables` are the 32-bit memories behind the other destinations, contiguous.

    Raises:
        Fault: WINDOW, RANGE, ALIGN (other destinations than the scratchpad), MALFORMED (fill of these).
    """
    if f["fill"]:
        if f["dest"] != Dest.SPAD:
            raise Fault(Cause.MALFORMED, BY_NAME["LOAD"]["fill"].offset)
        pad.put(_positions(f, pad, None, np.zeros(1)), f["fill_value"])
        return
    starts = _starts(f)
    if f["dest"] == Dest.SPAD:
        refused = ddr.first_refused(starts, f["n0"], write=False)
        pad.put(_positions(f, pad, refused, starts), ddr.gather(starts, f["n0"]))
        return
    if any(f[name] % 4 for name in ("ddr", "n0", "s1", "s2", "s3")):
        raise Fault(Cause.ALIGN, f["ddr"])
    refused = ddr.first_refused(starts, f["n0"], write=False)
    if refused is not None:
        raise Fault(Cause.WINDOW, int(starts.reshape(-1)[refused[0]]) + refused[1])
    element = f["element"] + _loops(f, "d")[..., None] + np.arange(f["n0"] // 4)
    data = np.ascontiguousarray(ddr.gather(starts, f["n0"])).view("<u4")
    _write_elements(tables[Dest(f["dest"])], element, data)


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
    for name in ("ddr", "step"):
        if f[name] % config.axi_bytes:
            raise Fault(Cause.ALIGN, f["ddr"])
    n, cols, groups = f["entries"], config.cols, config.entry_groups
    code_bytes = config.entry_beats * config.axi_bytes
    entry_bytes = code_bytes + (config.scale_beats * config.axi_bytes if f["scales"] else 0)
    starts = (f["ddr"] + np.arange(f["outer"], dtype=np.int64) * f["step"]) & ADDRESS_MASK
    refused = ddr.first_refused(starts, n * entry_bytes, write=False)
    if refused is not None:
        raise Fault(Cause.WINDOW, int(starts[refused[0]]) + refused[1])
    n *= f["outer"]
    raw = ddr.gather(starts, f["entries"] * entry_bytes).reshape(n, entry_bytes)
    codes = raw[:, : cols * config.word_bytes].reshape(n, cols, config.word_bytes).copy()
    scales = np.zeros((n, cols, groups, 2), np.uint8)
    if f["scales"]:
        scales[:] = raw[:, code_bytes : code_bytes + scales[0].size].reshape(scales.shape)
    for _ in range(f["repeat"]):
        ring.push(Entries(codes, scales), f["tag"])
