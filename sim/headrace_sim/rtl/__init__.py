"""The generated Verilog as a simulator: compiled by Verilator, with a DDR model in C++, driven from Python."""

from .builder import BuildError, Design, Waves, best_wave_format, build
from .ddr import DdrConfig
from .simulator import RtlSimulator, SimulationError
from .toolchain import ToolMissing
from .trace import Span, chrome_trace, spans, write_chrome_trace

__all__ = [
    "BuildError",
    "DdrConfig",
    "Design",
    "RtlSimulator",
    "SimulationError",
    "Span",
    "ToolMissing",
    "Waves",
    "best_wave_format",
    "build",
    "chrome_trace",
    "spans",
    "write_chrome_trace",
]
