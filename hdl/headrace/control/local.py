"""Execution of the CONTROL engine's commands: SCALAR and END."""

from amaranth import Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from headrace.config import index_bits
from headrace.isa import BY_NAME, ScalarOp
from headrace.isa.layout import command_layout

from .issue import IssueLayout

__all__ = ["LocalEngine"]


class LocalEngine(wiring.Component):
    """SCALAR writes a scalar register when accepted. END is accepted when `quiet`: every earlier command done.

    `done` follows acceptance by a cycle. With END, `ended` is set for that cycle and `value` holds END's value until
    the next.
    """

    def __init__(self, *, scalars: int) -> None:
        self._scalars = scalars
        super().__init__(
            {
                "i": In(stream.Signature(IssueLayout)),
                "quiet": In(1),
                "done": Out(1),
                "scalars": In(data.ArrayLayout(32, scalars)),
                "write": Out(1),
                "write_index": Out(index_bits(scalars)),
                "write_data": Out(32),
                "ended": Out(1),
                "value": Out(32),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        scalar_command, end_command = BY_NAME["SCALAR"], BY_NAME["END"]
        scalar = data.View(command_layout(scalar_command), self.i.payload.cmd)
        end = data.View(command_layout(end_command), self.i.payload.cmd)
        is_end = scalar.opcode == end_command.opcode
        source = Mux(scalar.op == ScalarOp.ADD, self.scalars[scalar.src], 0)
        m.d.comb += [
            self.i.ready.eq(~is_end | self.quiet),
            self.write_index.eq(scalar.dst),
            self.write_data.eq(source + scalar.imm),
            self.write.eq(self.i.valid & ~is_end),
        ]
        accepted_end = self.i.valid & is_end & self.quiet
        m.d.sync += [self.done.eq(self.i.valid & self.i.ready), self.ended.eq(accepted_end)]
        with m.If(accepted_end):
            m.d.sync += self.value.eq(end.value)
        return m
