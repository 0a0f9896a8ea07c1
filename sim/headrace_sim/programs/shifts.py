"""Activation shifts of a tensor's words, written by VECTOR passes with the KA sink."""

from headrace.isa import DataflowOp, DType, Source

from .allocate import Tensor
from .builder import Builder
from .chains import Chain, Stage
from .patches import emit_patched
from .streams import beat_bytes

__all__ = ["write_shifts"]

_TYPES = (DType.I8, DType.U8, DType.I4)


def write_shifts(build: Builder, tensor: Tensor) -> None:
    """Give every word of some pixels and planes of an initialised tensor a shift, taken from a byte of the word.

    Raises:
        NoRoom: when something does not fit.
    """
    word_bytes, lanes = build.config.word_bytes, build.config.vector_lanes
    build.new_unit()
    dtype = _TYPES[build.pick(0, len(_TYPES) - 1)]
    pixels = tensor.pixels if build.chance(0.8) else build.pick(1, tensor.pixels)
    planes = tensor.planes if build.chance(0.8) else build.pick(1, tensor.planes)
    first = build.pick(0, tensor.pixels - pixels)
    stages = []
    if build.chance(0.5):  # not always the whole range of 0..7
        mask = [1, 3, 7, 15][build.pick(0, 3)]
        stages = [Stage({"op": DataflowOp.IAND, "a": Source.X, "b": Source.IMM, "imm": mask})]
    placed = build.place(Chain(stages=stages), idx_base=0, beats=pixels * planes)
    byte = build.pick(0, word_bytes - 1)
    one_lane = byte + beat_bytes(dtype, lanes) > word_bytes or build.chance(0.5)
    inner, outer = ("c", "p") if build.chance(0.5) else ("p", "c")
    counts, steps = {"c": planes, "p": pixels}, {"c": word_bytes, "p": 1}
    fields = tensor.view("x_") | tensor.view("o_") | {"x_type": dtype, "o_type": DType.KA, "channels": int(one_lane)}
    for i, kind in enumerate((inner, outer)):
        fields |= {f"n{i}": counts[kind], f"m{i}": counts[kind]}
        fields |= {f"x_d{kind}{i}": steps[kind], f"o_d{kind}{i}": steps[kind]}
    fields |= {"x_c0": byte, "o_c0": build.pick(0, word_bytes - 1), "idx_loop": 2}
    fields["x_p0"] += first
    fields["o_p0"] += first
    emit_patched(build, "VECTOR", fields | placed.fields, chain=placed)
