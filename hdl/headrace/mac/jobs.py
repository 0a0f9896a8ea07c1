"""What each stage of the MAC engine needs to know of a MAC command, and of the steps it is made of."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from headrace.config import Precision, index_bits
from headrace.isa.commands import MAC

__all__ = ["FEED_JOB", "OPERATION", "ROW_JOB", "WEIGHT_JOB", "copy_job", "step_layout"]

WORD_FIELDS = ("kh", "kw", "cw", "fold", "mode", "depthwise")  # which words are reduced over, and how many an entry


def _job(*names: str) -> data.StructLayout:
    shapes = {n: signed(MAC[n].width) if MAC[n].signed else unsigned(MAC[n].width) for n in names}
    return data.StructLayout({"index": 16, **shapes})


ROW_JOB = _job(
    "in_p0", "ilv", "in_w", "out_w", "m_count", "stride_y", "stride_x", "pad_top", "pad_left",
    "n_tiles", "m_tiles", "t_count", "t_last",
)  # fmt: skip

FEED_JOB = _job(
    *WORD_FIELDS, "scales", "act_unsigned", "weight_unsigned", "in_base", "in_plane", "in_shift", "in_c0", "pad_value",
    "in_h", "in_w", "dil_y", "dil_x", "group_tiles", "group_planes",
)  # fmt: skip

WEIGHT_JOB = _job(*WORD_FIELDS, "replay", "hold", "scales", "kc_base", "n_tiles", "m_tiles", "tag")

OPERATION = data.StructLayout(
    {"mode": Precision, "scales": 1, "act_unsigned": 1, "weight_unsigned": 1, "depthwise": 1}
)  # what the array computes, the same in all steps of a command


def copy_job(job: Any, issued: Any) -> list[Any]:
    """Assignments that give a job (a view of one of the layouts above) its part of an issued command."""
    names = [name for name, _ in job.shape() if name != "index"]
    return [job.index.eq(issued.index), *(getattr(job, n).eq(getattr(issued.cmd, n)) for n in names)]


def step_layout(*, accs: int, taps: int) -> data.StructLayout:
    """One activation vector's place in the loops: an entry with one row group, or one of the words of that.

    operation: what the array computes; t: row group; first: the entry is the first of its tile; half: the vector is the
    entry's second word (A8W4); entry_last: the entry is not needed after this vector; tile_last, last: the last vector
    of a tile, of a command.
    Depthwise, kx: kernel column of the vector; kernel_last: it is the last of its kernel row; shared: odd kernel
    columns are to be taken from the neighbours of the row; taps: kernel columns.
    """
    column = range(taps + 1)
    depthwise = {"kx": column, "kernel_last": 1, "shared": 1, "taps": column} if taps else {}
    return data.StructLayout(
        {
            "operation": OPERATION,
            "t": index_bits(accs),
            "first": 1,
            "half": 1,
            "entry_last": 1,
            "tile_last": 1,
            "last": 1,
            **depthwise,
        }
    )
