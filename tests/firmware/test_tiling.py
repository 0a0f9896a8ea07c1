"""Strips and tiles cover the work exactly; allocators neither overlap nor leak."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import machine
from headrace_host.allocate import DDR_ALIGNMENT, DdrAllocator, Region, ScratchpadAllocator
from headrace_host.compiler.tiling import cut_tiles, growing_strips, shrinking_strips, strip_rows
from headrace_host.errors import CompileError


@given(st.sampled_from(["base", "odd", "thin", "m2"]), st.integers(1, 5000), st.integers(0, 2))
def test_tiles_cover_pixels_without_an_idle_group(name: str, pixels: int, interleave: int) -> None:
    config = machine(name)
    if 1 << interleave > config.accs:
        return
    tiles = cut_tiles(config, pixels, interleave, config.accs)
    groups = (tiles.m_tiles - 1) * tiles.t_count + tiles.t_last
    assert 1 <= tiles.t_last <= tiles.t_count <= config.accs
    assert tiles.t_count % (1 << interleave) == tiles.t_last % (1 << interleave) == 0
    assert 0 <= groups * config.rows - pixels < config.rows << interleave


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=4)


@given(st.integers(1, 300), SIZES, st.lists(st.integers(1, 50), max_size=4), st.integers(1, 4))
def test_strips_follow_each_other(total: int, growth: list[int], tail: list[int], unit: int) -> None:
    strips = strip_rows(total, growth, tail, unit)
    assert strips[0][0] == 0 and strips[-1][1] == total
    assert all(a < b for a, b in strips)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(strips))


@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 20), st.integers(2, 8))
def test_only_the_last_strip_is_ragged(blocks: int, rest: int, last: int, unit: int) -> None:
    strips = strip_rows(blocks * unit + rest, [3 * unit], [last], unit)
    assert all((end - start) % unit == 0 for start, end in strips[:-1]) or len(strips) == 2


@given(last=st.integers(1, 20), largest=st.integers(1, 100), ratio=st.floats(0.1, 20), unit=st.integers(1, 8))
def test_last_strips_shrink(last: int, largest: int, ratio: float, unit: int) -> None:
    sizes = shrinking_strips(last=last, largest=largest, compute=100 * ratio, store=100, unit=unit)
    assert sizes[0] == last and sizes == sorted(set(sizes))
    assert all(size < largest and size % unit == 0 for size in sizes[1:])
    assert all(after <= max(2, ratio) * before for before, after in itertools.pairwise(sizes))


@given(
    first=st.integers(1, 40), largest=st.integers(1, 200), compute=st.floats(1, 5000), load=st.floats(0.5, 500),
    busy=st.floats(0, 5000), unit=st.integers(1, 8),
)  # fmt: skip
def test_strips_grow_to_the_largest(
    first: int, largest: int, compute: float, load: float, busy: float, unit: int
) -> None:
    sizes = growing_strips(first=first, largest=largest, compute=compute, load=load, busy=busy, unit=unit)
    assert sizes[-1] == largest and sizes == sorted(sizes) and sizes[0] == min(first, largest)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 1), st.booleans()), max_size=40))
def test_scratchpad_regions_never_overlap(requests: list[tuple[int, int, bool]]) -> None:
    allocator = ScratchpadAllocator(machine("tiny"))
    live: list[Region] = []
    for words, prefer, release in requests:
        region = allocator.allocate(words, prefer=prefer)
        if region is not None:
            assert all(region.end <= other.start or other.end <= region.start for other in live)
            assert region.start // allocator.sub_bank_words == (region.end - 1) // allocator.sub_bank_words
            live.append(region)
        if release and live:
            allocator.release(live.pop(0))
    for region in live:
        allocator.release(region)
    assert allocator.largest(0) == allocator.largest(1) == allocator.sub_bank_words


def test_ddr_is_aligned_and_bounded() -> None:
    allocator = DdrAllocator(4096, 4096 + 200)
    assert allocator.allocate(10, "a") == 4096
    assert allocator.allocate(10, "b") == 4096 + DDR_ALIGNMENT
    with pytest.raises(CompileError, match="c: 100 bytes do not fit"):
        allocator.allocate(100, "c")
