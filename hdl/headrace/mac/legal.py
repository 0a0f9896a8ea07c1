"""Rules between the fields of a MAC command, see the architecture manual."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amaranth import Const, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from headrace.config import Precision
from headrace.interfaces import ADDR_BITS, cause_shape
from headrace.isa import Cause
from headrace.isa.commands import MAC
from headrace.isa.layout import command_layout

__all__ = ["LegalCheck"]


class LegalCheck(wiring.Component):
    """Combinational: whether `cmd` is `legal`; if not, `cause` and `address` of the first rule it breaks.

    MALFORMED has the bit offset of the named field as address, RANGE the last word of the table of group offset shifts.
    """

    def __init__(self, *, lanes: int, accs: int, kc_words: int, taps: int, halves: int) -> None:
        self._lanes = lanes
        self._accs = accs
        self._kc_words = kc_words
        self._taps = taps
        self._halves = halves
        super().__init__(
            {
                "cmd": In(command_layout(MAC)),
                "legal": Out(1),
                "cause": Out(cause_shape),
                "address": Out(ADDR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cmd: Any = self.cmd
        m.d.comb += self.legal.eq(1)
        rules = list(self._rules(cmd))
        # Later assignments win: the first rule comes last.
        last_shift = cmd.kc_base + cmd.n_tiles - 1
        scaled_4 = cmd.scales & (cmd.mode != Precision.A8W8)
        with m.If(scaled_4 & (last_shift >= self._kc_words)):
            m.d.comb += [self.legal.eq(0), self.cause.eq(Cause.RANGE), self.address.eq(last_shift)]
        for field, broken in reversed(rules):
            with m.If(broken):
                m.d.comb += [self.legal.eq(0), self.cause.eq(Cause.MALFORMED), self.address.eq(MAC[field].offset)]
        return m

    def _rules(self, cmd: Any) -> Iterator[tuple[str, Value]]:
        """Field to name and when it is wrong, in order."""
        yield "scales", cmd.scales & (cmd.fold | self._too_wide(cmd.mode))
        if self._lanes < 8:
            yield "scales", cmd.scales & ((cmd.t_count > 1) | (cmd.t_last > 1))
        if self._taps:
            room = self._accs // self._halves
            for field, wrong in (
                ("mode", cmd.mode != Precision.A8W8),
                ("fold", cmd.fold),
                ("scales", cmd.scales),
                ("cw", cmd.cw != 1),
                ("group_tiles", cmd.group_tiles != 0),
                ("kw", cmd.kw > self._taps),
                ("t_count", cmd.t_count > room),
                ("t_last", cmd.t_last > room),
            ):
                yield field, cmd.depthwise & wrong

    def _too_wide(self, mode: Value) -> Value:
        """A phase reduces more than a group."""
        if self._lanes > 16:
            return Const(1)
        return Mux(mode == Precision.A4W4, self._lanes > 8, 0)
