"""A finite impulse response filter over many signals at once, as a kernel of the dataflow array.

Rows are samples in time, channels are signals: 16 microphones, say.

    python examples/fir.py                      filters a noisy sine and prints what is left of the noise
    headrace kernel examples/fir.py --explain   shows the passes it becomes
"""

import numpy as np

from headrace.config import machine
from headrace_host.kernels.running import run
from headrace_host.kernels.trace import I16, Stream, kernel

TAPS = (3, 12, 29, 40, 29, 12, 3)
"""In 128ths; a low-pass filter."""


@kernel(result=I16)
def fir(signal: I16) -> Stream:
    """Sum of the taps times earlier samples, which are zero before the first."""
    # Python unrolls the loop; the compiler makes a pass of the dataflow array of every tap.
    total = signal * TAPS[0]
    for delay, tap in enumerate(TAPS[1:], start=1):
        total = total + signal.shifted(-delay) * tap
    return (total + 64) >> 7


def main() -> None:
    """Filter 16 noisy sines."""
    rng = np.random.default_rng(0)
    clean = np.sin(np.arange(400) / 20)[:, None] * np.full(16, 8000)
    noisy = (clean + rng.normal(0, 1000, clean.shape)).astype(np.int16)
    filtered = run(fir, {"signal": noisy}, machine("base"))
    late = len(TAPS) // 2
    before, after = (noisy[late:-late] - clean[late:-late]), (filtered[2 * late :] - clean[late:-late])
    print(f"noise before: {before.std():.0f}, after: {after.std():.0f}")


if __name__ == "__main__":
    main()
