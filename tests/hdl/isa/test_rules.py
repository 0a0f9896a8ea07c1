"""Rules between the fields of a MAC command: cause, address and order."""

from dataclasses import replace

import pytest

from headrace.config import NpuConfig, machine
from headrace.isa import Cause, Precision
from headrace.isa.assembler import default
from headrace.isa.commands import MAC
from headrace.isa.rules import MAC_RULE_FIELDS, mac_rule

TINY, ODD, BASE, M2 = (machine(name) for name in ("tiny", "odd", "base", "m2"))  # K = 2, 4, 8, 16
WIDE = replace(M2, name="wide", lanes=32)
A8W8, A8W4, A4W4 = Precision


def rule(config: NpuConfig, fields: dict[str, int]) -> tuple[Cause, int] | None:
    return mac_rule(config, {f.name: default(MAC, f) for f in MAC.fields} | fields)


def malformed(name: str) -> tuple[Cause, int]:
    return Cause.MALFORMED, MAC[name].offset


@pytest.mark.parametrize("mode", Precision)
@pytest.mark.parametrize("config", [TINY, ODD, BASE, M2, WIDE], ids=lambda config: config.name)
def test_group_scales(config: NpuConfig, mode: Precision) -> None:
    possible = config.lanes <= (8 if mode == A4W4 else 16)
    fields = {"scales": 1, "mode": mode}
    assert rule(config, fields) == (None if possible else malformed("scales"))
    assert rule(config, {"mode": mode, "t_count": 2, "t_last": 2}) is None
    for name in ("t_count", "t_last"):
        assert rule(config, fields | {name: 2}) == (None if possible and config.lanes >= 8 else malformed("scales")), (
            name
        )
    assert rule(config, fields | {"fold": 1}) == malformed("scales")


@pytest.mark.parametrize(
    ("config", "fields", "expected"),
    [
        (BASE, {}, None),
        (BASE, {"kw": 5, "kh": 9, "t_count": 8, "t_last": 8}, None),
        (BASE, {"kw": 6}, malformed("kw")),
        (BASE, {"t_count": 9}, malformed("t_count")),
        (BASE, {"t_last": 9}, malformed("t_last")),
        (BASE, {"cw": 2}, malformed("cw")),
        (BASE, {"group_tiles": 1}, malformed("group_tiles")),
        (BASE, {"fold": 1}, malformed("fold")),
        (BASE, {"mode": A8W4}, malformed("mode")),
        (BASE, {"scales": 1}, malformed("scales")),
        (BASE, {"t_last": 9, "t_count": 9, "kw": 6}, malformed("kw")),
        (BASE, {"kw": 6, "group_tiles": 1, "cw": 2}, malformed("cw")),
        (BASE, {"cw": 2, "fold": 1, "mode": A4W4}, malformed("mode")),
        (M2, {"t_count": 16, "t_last": 16}, None),
        (TINY, {"kw": 2}, None),
        (TINY, {"kw": 3}, malformed("kw")),
    ],
)
def test_depthwise(config: NpuConfig, fields: dict[str, int], expected: tuple[Cause, int] | None) -> None:
    assert rule(config, fields | {"depthwise": 1}) == expected


@pytest.mark.parametrize("mode", Precision)
def test_table_of_offset_shifts(mode: Precision) -> None:
    last = {"scales": 1, "mode": mode, "kc_base": 250}
    assert rule(BASE, last | {"n_tiles": 6}) is None
    assert rule(BASE, last | {"n_tiles": 7}) == (None if mode == A8W8 else (Cause.RANGE, 256))
    assert rule(BASE, last | {"n_tiles": 7, "scales": 0}) is None


def test_the_rule_reads_the_fields_it_names() -> None:
    values = {name: default(MAC, MAC[name]) for name in MAC_RULE_FIELDS}
    assert mac_rule(BASE, values | {"scales": 1}) is None
    assert mac_rule(BASE, values | {"depthwise": 1}) is None
