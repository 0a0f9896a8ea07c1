"""A compiled machine with its memory, driven from Python through the C interface of the harness."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from .ddr import DdrConfig, DdrStruct
from .trace import EVENT_DTYPE

__all__ = ["RtlSimulator", "SimulationError"]

_CHUNK = 20_000  # cycles between two looks at the keyboard
_INTERRUPT, _CYCLES_UP, _ERROR = range(3)


class SimulationError(RuntimeError):
    """The machine broke the AXI rules, failed an assertion, or did not answer."""


class RtlSimulator:
    """One machine of a compiled `library`, fresh from reset, with a memory of zeros. Several may exist at once.

    Every access to the machine advances its clock. After a violation of the AXI rules or a failed assertion of the
    design every further run raises `SimulationError`.
    """

    def __init__(self, library: str | Path, *, ddr: DdrConfig | None = None) -> None:
        self.ddr = ddr or DdrConfig()
        self._lib = _load(library)
        struct = self.ddr.to_struct()
        self._machine = self._lib.headrace_create(ctypes.byref(struct))
        if not self._machine:
            raise MemoryError(f"no room for a memory of {self.ddr.bytes} bytes")
        pointer = self._lib.headrace_memory(self._machine)
        self.memory: npt.NDArray[np.uint8] = np.ctypeslib.as_array(pointer, shape=(self.ddr.bytes,))
        """The bytes of DDR, the first at `ddr.base`; shared with the machine, so it must not outlive it."""

    def close(self) -> None:
        """Frees the machine and its memory."""
        if self._machine:
            self.memory = np.zeros(0, np.uint8)
            self._lib.headrace_destroy(self._machine)
            self._machine = None

    def __enter__(self) -> RtlSimulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_machine", None):
            self.close()

    def write_memory(self, address: int, content: bytes | bytearray | npt.NDArray[np.generic]) -> None:
        """Put bytes, or an array's bytes in C order, into DDR without using the bus."""
        raw = np.frombuffer(content.tobytes() if isinstance(content, np.ndarray) else bytes(content), np.uint8)
        self.memory[self._range(address, raw.size)] = raw

    def read_memory(self, address: int, size: int) -> bytes:
        """`size` bytes of DDR."""
        return self.memory[self._range(address, size)].tobytes()

    def _range(self, address: int, size: int) -> slice:
        begin = address - self.ddr.base
        if begin < 0 or begin + size > self.ddr.bytes:
            raise ValueError(f"{size} bytes at {address:#x} are outside of the memory")
        return slice(begin, begin + size)

    def write_register(self, offset: int, value: int, *, strobe: int = 0xF) -> None:
        """AXI4-Lite write of the bytes in `strobe`; raises `SimulationError` when it is refused."""
        response = self._lib.headrace_write_register(self._machine, offset, value & 0xFFFFFFFF, strobe)
        self._check_response(response, f"write to register {offset:#05x}")

    def read_register(self, offset: int) -> int:
        """AXI4-Lite read; raises `SimulationError` when it is refused."""
        value = ctypes.c_uint32()
        response = self._lib.headrace_read_register(self._machine, offset, ctypes.byref(value))
        self._check_response(response, f"read of register {offset:#05x}")
        return value.value

    def _check_response(self, response: int, what: str) -> None:
        self._check()
        if response:
            raise SimulationError(f"{what}: {'no answer' if response < 0 else f'response {response}'}")

    def reset(self, cycles: int = 4) -> None:
        """Hold reset for some cycles: registers start anew, memories keep their contents."""
        self._lib.headrace_reset(self._machine, cycles)
        self._check()

    def run(self, cycles: int) -> None:
        """Advance the clock."""
        for begin in range(0, cycles, _CHUNK):
            self._lib.headrace_run(self._machine, min(_CHUNK, cycles - begin), 0)
            self._check()

    def run_until_interrupt(self, max_cycles: int, *, progress: Callable[[int], None] | None = None) -> bool:
        """Advance the clock until `irq` is high; False if it was not within `max_cycles`.

        `progress` is called now and then with the number of cycles since the beginning of the run.
        """
        for begin in range(0, max_cycles, _CHUNK):
            result = self._lib.headrace_run(self._machine, min(_CHUNK, max_cycles - begin), 1)
            self._check()
            if result == _INTERRUPT:
                return True
            if progress is not None:
                progress(begin + _CHUNK)
        return False

    def _check(self) -> None:
        error = self._lib.headrace_error(self._machine)
        if error:
            raise SimulationError(error.decode())

    @property
    def cycle(self) -> int:
        """Cycles since the machine exists."""
        return int(self._lib.headrace_cycle(self._machine))

    @property
    def read_beats(self) -> int:
        """Beats the memory delivered."""
        return int(self._lib.headrace_read_beats(self._machine))

    @property
    def write_beats(self) -> int:
        """Beats the memory took."""
        return int(self._lib.headrace_write_beats(self._machine))

    def trace_events(self) -> npt.NDArray[np.void]:
        """Events of the trace port since creation or `clear_trace`, as `EVENT_DTYPE`."""
        count = self._lib.headrace_trace_size(self._machine)
        if not count:
            return np.zeros(0, EVENT_DTYPE)
        data = ctypes.string_at(self._lib.headrace_trace(self._machine), count * EVENT_DTYPE.itemsize)
        return np.frombuffer(data, EVENT_DTYPE)

    def clear_trace(self) -> None:
        """Forget the events recorded so far."""
        self._lib.headrace_trace_clear(self._machine)

    def start_waves(self, path: str | Path) -> None:
        """Record all signals into a file until `stop_waves`; the library must have been built with waves."""
        if not self._lib.headrace_start_waves(self._machine, str(path).encode()):
            raise SimulationError(f"cannot record waves to {path}: build with waves, into a directory that exists")

    def stop_waves(self) -> None:
        """Complete the file."""
        self._lib.headrace_stop_waves(self._machine)


def _load(library: str | Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library))
    machine, u64, u32 = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32
    prototypes: dict[str, tuple[object, list[object]]] = {
        "create": (machine, [ctypes.POINTER(DdrStruct)]),
        "destroy": (None, [machine]),
        "reset": (None, [machine, u64]),
        "memory": (ctypes.POINTER(ctypes.c_uint8), [machine]),
        "write_register": (ctypes.c_int, [machine, u32, u32, u32]),
        "read_register": (ctypes.c_int, [machine, u32, ctypes.POINTER(u32)]),
        "run": (ctypes.c_int, [machine, u64, ctypes.c_int]),
        "cycle": (u64, [machine]),
        "read_beats": (u64, [machine]),
        "write_beats": (u64, [machine]),
        "error": (ctypes.c_char_p, [machine]),
        "trace_size": (u64, [machine]),
        "trace": (ctypes.c_void_p, [machine]),
        "trace_clear": (None, [machine]),
        "start_waves": (ctypes.c_int, [machine, ctypes.c_char_p]),
        "stop_waves": (None, [machine]),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(lib, f"headrace_{name}")
        function.restype, function.argtypes = result, arguments
    return lib
