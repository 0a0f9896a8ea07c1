"""What a run left."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """`error` in words or None, the END value, all of DDR, and cycles where time exists."""

    error: str | None
    end_value: int | None
    ddr: npt.NDArray[np.uint8]
    cycles: int | None = None
