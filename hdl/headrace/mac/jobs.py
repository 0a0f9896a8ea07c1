"""What each stage of the MAC engine needs to know of a MAC command, and of the steps it is made of."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from headrace.config import index_bits
from headrace.isa.commands import MAC

__all__ = ["ENTRY_FIELDS", "FEED_JOB", "ROW_JOB", "WEIGHT_JOB", "copy_job", "step_layout"]

ENTRY_FIELDS = ("kh", "kw", "cw", "fold")  # how many entries an n tile has


def _job(*names: str) -> data.StructLayout:
    shapes = {n: signed(MAC[n].width) if MAC[n].signed else unsigned(MAC[n].width) for n in names}
    return data.StructLayout({"index": 16, **shapes})


ROW_JOB = _job(
    "in_p0", "ilv", "in_w", "out_w", "m_count", "stride_y", "stride_x", "pad_top", "pad_left",
    "n_tiles", "m_tiles", "t_count", "t_last",
)  # fmt: skip

FEED_JOB = _job(
    *ENTRY_FIELDS, "in_base", "in_plane", "in_shift", "in_c0", "pad_value", "in_h", "in_w", "dil_y", "dil_x",
    "group_tiles", "group_planes",
)  # fmt: skip

WEIGHT_JOB = _job(*ENTRY_FIELDS, "replay", "hold", "n_tiles", "m_tiles", "tag")


def copy_job(job: Any, issued: Any) -> list[Any]:
    """Assignments that give a job (a view of one of the layouts above) its part of an issued command."""
    names = [name for name, _ in job.shape() if name != "index"]
    return [job.index.eq(issued.index), *(getattr(job, n).eq(getattr(issued.cmd, n)) for n in names)]


def step_layout(*, accs: int) -> data.StructLayout:
    """One step of the array: an entry with one row group.

    t: row group; first: the entry is the first of its tile; entry_last: the entry is not needed for another row group;
    tile_last, last: the last step of a tile, of a command.
    """
    return data.StructLayout({"t": index_bits(accs), "first": 1, "entry_last": 1, "tile_last": 1, "last": 1})
