"""Good programs turned bad: one command changed, everything else as it was."""

from dataclasses import replace

import numpy as np

from headrace.config import NpuConfig
from headrace.isa.assembler import Program, encode
from headrace_sim.programs import Access, Case

PAGE = 4096


def commands(case: Case, name: str) -> list[tuple[int, dict[str, int]]]:
    """Index and fields of every command of a kind whose fields are not patched."""
    program = Program.from_image(case.image)
    return [(i, f) for i, (c, f) in enumerate(program) if c.name == name and not f["patch0"]]


def changed(case: Case, index: int, **fields: int) -> Case:
    """The case with some fields of a command replaced."""
    command, values = Program.from_image(case.image)[index]
    return with_raw(case, index, encode(command.name, **(values | fields)))


def with_bit(case: Case, index: int, bit: int) -> Case:
    """The case with one bit of a command inverted."""
    raw = bytearray(case.image[128 * index : 128 * index + 128])
    raw[bit // 8] ^= 1 << bit % 8
    return with_raw(case, index, bytes(raw))


def with_raw(case: Case, index: int, raw: bytes) -> Case:
    contents = case.ddr.copy()
    at = case.ring_base - case.ddr_base + 128 * index
    contents[at : at + 128] = np.frombuffer(raw, np.uint8)
    return replace(case, ddr=contents)


def from_commands(config: NpuConfig, image: list[bytes], *, data: bytes = b"") -> Case:
    """A case of hand-written commands; `data` lies at 0x40000, one window is open over everything."""
    size = 1 << 19
    contents = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    raw = b"".join(image)
    contents[: len(raw)] = np.frombuffer(raw, np.uint8)
    contents[0x40000 : 0x40000 + len(data)] = np.frombuffer(data, np.uint8)
    everything = Access(0, size // PAGE, read=True, write=True)
    closed = Access(0, 0, read=False, write=False)
    return Case(
        config=config,
        seed=0,
        ddr_base=0,
        ddr=contents,
        ring_base=0,
        ring_log2=(len(image) - 1).bit_length(),
        commands=len(image),
        end_value=0,
        windows=(everything, *[closed] * (config.windows - 1)),
        outputs=(),
        description=(),
    )
