"""Registers as one clocked process each.

Amaranth and Yosys write a register as two processes: `always @*` computes the next value, reset included, into a
variable and `always @(posedge clk)` takes it over. A compiled simulation evaluates the first whenever reset or another
input of the top might have changed: the whole machine is computed three times a cycle. Written as one clocked process,
as a person would, everything is computed once, and an `if` around an assignment skips what it guards.
"""

from __future__ import annotations

import re

__all__ = ["merge_registers"]

_MODULE_END = re.compile(r"(?<=^endmodule\n)", re.M)
_NEXT = re.compile(r"^  always @\*\s+begin\n(?P<body>.*?)^  end\n", re.M | re.S)
_TAKE = re.compile(r"^  always @\(posedge (?P<clock>\S+?) ?\)\n    (?P<register>\S+) +<= (?P<next>\\\$\d+) ;\n", re.M)
_ASSIGNED = re.compile(r"^\s*(?P<name>\\\S+ |\w+)(?: ?\[[\d:]+\])? += ", re.M)
_GENERATED = re.compile(r"\\\$\d+(?= )")
_CONSTANT = re.compile(r"^  always @\*\n    (?P<assigned>[^=;]+) = (?P<value>\d+'[hbd][0-9a-f]+);\n", re.M)
_DECLARATION = re.compile(r"^  reg (?:\[[\d:]+\] )?(?P<name>\\\$\d+) ;\n", re.M)


def merge_registers(verilog: str) -> str:
    """Verilog as Amaranth emits it, every pair of processes that makes a register merged into one.

    A process that assigns a constant reads nothing, so that `always @*` would never run: it becomes `initial`.
    """
    verilog = _CONSTANT.sub(r"  initial \g<assigned> = \g<value>;\n", verilog)
    return "".join(_merge(module) for module in _MODULE_END.split(verilog))


def _merge(module: str) -> str:
    uses: dict[str, int] = {}
    for name in _GENERATED.findall(module):
        uses[name] = uses.get(name, 0) + 1
    takes = {take["next"]: take for take in _TAKE.finditer(module)}
    merged: set[str] = set()

    def process(match: re.Match[str]) -> str:
        names = {m["name"].strip() for m in _ASSIGNED.finditer(match["body"])}
        name = names.pop() if len(names) == 1 else ""
        # Beside the process there are its declaration and the register that takes it over; any other use keeps it.
        if name not in takes or uses[name] != match["body"].count(name + " ") + 2:
            return match[0]
        merged.add(name)
        return _clocked(match["body"], name, takes[name])

    module = _NEXT.sub(process, module)
    module = _TAKE.sub(lambda take: "" if take["next"] in merged else take[0], module)
    return _DECLARATION.sub(lambda declared: "" if declared["name"] in merged else declared[0], module)


def _clocked(body: str, name: str, take: re.Match[str]) -> str:
    """The process with assignments to the register instead of its next value."""
    register = take["register"] + (" " if take["register"].startswith("\\") else "")
    keeps = f"{take['register']}<={take['register']};"
    target = re.compile(rf"^(\s*){re.escape(name)} ( ?\[[\d:]+\])? *= ")
    lines = [f"  always @(posedge {take['clock']}) begin"]
    for line in body.splitlines()[1:]:  # the first line makes an `always @*` run at time 0
        line = target.sub(lambda m: f"{m[1]}{register}{(m[2] or '').strip()} <= ", line)
        if line.replace(" ", "") != keeps:
            lines.append(line)
    return "\n".join([*lines, "  end\n"])
