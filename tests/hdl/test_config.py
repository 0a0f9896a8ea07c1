"""The machine description: what is refused, what is warned about, what follows from the parameters."""

from dataclasses import replace

import pytest

from headrace.config import MACHINES, ConfigError, Precision, machine

BASE = MACHINES["base"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"lanes": 6}, "lanes must be a power of two"),
        ({"axi_bits": 96}, "axi_bits must be"),
        ({"burst_beats": 512}, "burst_beats"),
        ({"axi_bits": 512, "burst_beats": 128}, "4 KiB"),
        ({"tokens": 33}, "32 tokens"),
        ({"accs": 65}, "64 accumulators"),
        ({"multiplier": "lut"}, "multiplier must be"),
        ({"kc_words": 0}, "kc_words"),
        ({"spad_bytes": 3 << 16}, "power of two"),
        ({"ring_bytes": 100 << 10}, "2^n"),
        ({"gasket_beats": 63}, "gasket must hold"),
    ],
)
def test_a_machine_that_cannot_work_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match="machine 'base'") as error:
        replace(BASE, **change)  # type: ignore[arg-type]  # wrong values are the point
    assert reason in str(error.value)


def test_an_unknown_machine_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown machine 'big'.*base.*m2"):
        machine("big")


def test_base_has_the_shape_of_the_design() -> None:
    assert BASE.macs_per_cycle == 256
    assert (BASE.word_bytes, BASE.bank_words, BASE.ring_entries) == (16, 4096, 512)
    assert (BASE.entry_beats, BASE.scale_beats) == (8, 1)  # 144 bits a group and column
    assert (BASE.halves, BASE.depthwise_taps) == (2, 5)


def test_scales_need_groups_no_shorter_than_a_phase() -> None:
    wide = MACHINES["m2"]
    assert wide.entry_groups == 2
    assert wide.scaled(Precision.A8W4)
    assert not wide.scaled(Precision.A4W4)
    assert all(BASE.scaled(p) for p in Precision)


def test_what_makes_a_machine_slow_is_said() -> None:
    assert BASE.warnings() == []
    assert any("one row group" in w for w in MACHINES["tiny"].warnings())
    assert any("below 512 wait" in w for w in MACHINES["m2"].warnings())
    assert any("group scales" in w for w in replace(BASE, lanes=32, ring_bytes=1 << 18, spad_bytes=1 << 20).warnings())
    assert any("weights limit" in w for w in replace(BASE, accs=2).warnings())


def test_a_word_that_n_tiles_do_not_divide_has_no_depthwise_mode() -> None:
    assert MACHINES["odd"].halves == 0
    assert [MACHINES[name].depthwise_taps for name in ("odd", "thin", "tiny", "edge")] == [0, 0, 2, 5]
