"""Parameters of the memory model."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields

__all__ = ["DdrConfig", "DdrStruct"]


@dataclass(frozen=True, kw_only=True)
class DdrConfig:
    """Memory behind the AXI port: where it is and how it behaves. Times are cycles of the machine's clock.

    Reads and writes share the bandwidth of `beats_num / beats_den` beats a cycle. The defaults are a memory that
    delivers one beat a cycle, 60 cycles after the request.

    Raises:
        ValueError: naming a parameter out of range.
    """

    base: int = 0
    bytes: int = 1 << 24
    read_latency: int = 60  # address to first data, at the least
    write_latency: int = 10  # last data to response, at the least
    read_outstanding: int = 64  # requests accepted and not yet answered
    write_outstanding: int = 64
    beats_num: int = 1
    beats_den: int = 1
    row_bytes: int = 2048
    banks: int = 8
    row_miss: int = 0  # lost when a beat is not in the open row of its bank
    refresh_interval: int = 0  # 0: no refresh
    refresh_cycles: int = 0
    turnaround: int = 0  # lost between a read and a write
    stall_per_1024: int = 0  # chance of withholding a ready or a new valid
    seed: int = 1
    error_base: int = 0  # accesses in [error_base, error_base + error_bytes) are answered with error_response
    error_bytes: int = 0
    error_response: int = 2  # 2 SLVERR, 3 DECERR

    def __post_init__(self) -> None:
        for name in ("bytes", "read_outstanding", "write_outstanding", "row_bytes", "banks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must not be negative")
        if not 1 <= self.beats_num <= self.beats_den:
            raise ValueError("the bandwidth beats_num / beats_den must be positive and at most one beat a cycle")
        if self.stall_per_1024 >= 1024:
            raise ValueError("stall_per_1024 must be below 1024")
        if self.error_response not in (2, 3):
            raise ValueError("error_response must be 2 (SLVERR) or 3 (DECERR)")

    def to_struct(self) -> DdrStruct:
        """The C structure of the same parameters."""
        return DdrStruct(**{field.name: getattr(self, field.name) for field in fields(self)})


class DdrStruct(ctypes.Structure):
    """`DdrParameters` of ddr.hpp."""

    _fields_ = [(field.name, ctypes.c_uint64) for field in fields(DdrConfig)]
