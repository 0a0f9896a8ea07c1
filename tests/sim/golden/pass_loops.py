"""EPILOGUE and VECTOR once more, as loops over beats; checks of the golden machine against them."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from headrace.config import NpuConfig
from headrace.isa import encode_context
from headrace_sim.golden import GoldenMachine

from .loops import DATA, Beat, Fields, columns, fields_of, read_lane, run_ok, start, write_beat
from .mac_loops import Memories, entry_count, mac_tiles, output_pixel


def random_machine(config: NpuConfig, seed: int = 1) -> GoldenMachine:
    rng = np.random.default_rng(seed)
    m = GoldenMachine(config, ddr_bytes=1 << 18)
    m.ddr[:] = rng.integers(0, 256, len(m.ddr), np.uint8)
    m.scratchpad.data[:] = rng.integers(0, 256, m.scratchpad.data.shape, np.uint8)
    m.scratchpad.ka[:] = rng.integers(0, 8, m.scratchpad.ka.shape, np.uint8)
    m.dataflow.memory[:] = rng.integers(-(2**31), 2**31, m.dataflow.memory.shape)
    return m


def set_contexts(m: GoldenMachine, contexts: list[list[Fields]], first: int = 0) -> list[list[Fields]]:
    """Write contexts into the columns; returns them with every column present."""
    full = [context + [{}] * (m.config.columns - len(context)) for context in contexts]
    for c, context in enumerate(full):
        for s, column in enumerate(context):
            m.dataflow.contexts[first + c, s] = encode_context(**column)
    return full


def copy_of(m: GoldenMachine) -> SimpleNamespace:
    """The scratchpad's memories, for a loop to write."""
    return SimpleNamespace(data=m.scratchpad.data.copy(), ka=m.scratchpad.ka.copy())


def check_epilogue(m: GoldenMachine, contexts: list[list[Fields]], mac: Fields, fields: Fields) -> None:
    """Run a MAC (random entries, replayed) and its EPILOGUE, and compare the scratchpad; `contexts` are those of the
    pass.
    """
    config = m.config
    f, mac_fields = fields_of("EPILOGUE", **fields), fields_of("MAC", **mac)
    pad = copy_of(m)
    pitch = config.entry_beats * config.axi_bytes
    count = mac["n_tiles"] * entry_count(config, mac_fields)
    entries = [
        (m.ddr[DATA + i * pitch :][: config.cols * config.word_bytes].reshape(config.cols, -1), None)
        for i in range(count)
    ]
    tiles = mac_tiles(config, Memories(pad.data, entries), mac_fields)
    for tile in epilogue_beats(config, pad.data, f, tiles):
        for beat in columns(contexts, m.dataflow.memory.tolist(), tile, m.config.sum_column):
            pixel, channel = beat.key
            if pixel < f["m_count"]:
                write_beat(config, pad, f, "out_", pixel, start(f, "out_", channel), beat)
    run_ok(m, ("WEIGHT", {"ddr": DATA, "entries": count}), ("MAC", mac), ("EPILOGUE", fields))
    compare(m, pad)
    assert len(m.accumulators) == 0


def check_vector(m: GoldenMachine, contexts: list[list[Fields]], fields: Fields) -> None:
    """Run a VECTOR and compare the scratchpad; `contexts` are those of the pass."""
    config = m.config
    f = fields_of("VECTOR", **fields)
    pad = copy_of(m)
    beats = columns(contexts, m.dataflow.memory.tolist(), list(vector_beats(config, pad.data, f)), config.sum_column)
    assert len(beats) == f["m0"] * f["m1"] * f["m2"]
    for number, beat in enumerate(beats):
        j = (number % f["m0"], number // f["m0"] % f["m1"], number // f["m0"] // f["m1"])
        pixel = sum(j[i] * f[f"o_dp{i}"] for i in range(3))
        byte = sum(j[i] * f[f"o_dc{i}"] for i in range(3))
        write_beat(config, pad, f, "o_", pixel, byte, beat)
    run_ok(m, ("VECTOR", fields))
    compare(m, pad)


def compare(m: GoldenMachine, pad: SimpleNamespace) -> None:
    np.testing.assert_array_equal(m.scratchpad.data, pad.data)
    np.testing.assert_array_equal(m.scratchpad.ka, pad.ka)


def epilogue_beats(c: NpuConfig, spad: Any, f: Fields, tiles: Any) -> list[list[Beat]]:
    """Beats of every pass, which is a tile."""
    halves = c.word_bytes // c.cols if f["depthwise"] else 1
    passes = []
    for n in range(f["n_tiles"]):
        for mt in range(f["m_tiles"]):
            acc = tiles[n * f["m_tiles"] + mt]
            beats: list[Beat] = []
            for t in range(len(acc) // halves):
                for r in range(c.rows):
                    for h in range(halves):
                        m = output_pixel(c, f, mt, t, r)
                        beats += row_beats(c, spad, f, acc[t * halves + h][r], n * halves + h, m)
            passes.append(beats)
    return passes


def row_beats(c: NpuConfig, spad: Any, f: Fields, acc: list[int], n: int, m: int) -> Iterator[Beat]:
    lanes = c.vector_lanes
    for b in range(c.acc_beats):
        channel = n * c.cols + b * lanes
        beat = Beat([0] * lanes, [0] * lanes, f["idx_base"] + n * c.acc_beats + b, (m, channel), [False] * lanes)
        beat.ends = b == c.acc_beats - 1
        for i in range(lanes):
            if b * lanes + i >= c.cols:
                continue
            beat.x[i] = acc[b * lanes + i]
            beat.lanes[i] = m < f["m_count"] and (f["channels"] == 0 or channel + i < f["channels"])
            if beat.lanes[i] and f["res_enable"]:
                beat.y[i] = read_lane(c, spad, f, "res_", m, start(f, "res_", 0 if f["res_row"] else channel), i)
        yield beat


def vector_beats(c: NpuConfig, spad: Any, f: Fields) -> Iterator[Beat]:
    for i3 in range(f["n3"]):
        for i2 in range(f["n2"]):
            for i1 in range(f["n1"]):
                for i0 in range(f["n0"]):
                    yield one_beat(c, spad, f, (i0, i1, i2, i3))


def one_beat(c: NpuConfig, spad: Any, f: Fields, i: tuple[int, ...]) -> Beat:
    k = i[f["idx_loop"]]
    lanes = [f["channels"] == 0 or k * c.vector_lanes + n < f["channels"] for n in range(c.vector_lanes)]
    streams: dict[str, list[int]] = {}
    for v in "yx":
        pixel = sum(i[n] * f[f"{v}_dp{n}"] for n in range(4))
        if v == "x":
            pixel += streams["y"][0] % 2 ** f["x_gather"]
        byte = sum(i[n] * f[f"{v}_dc{n}"] for n in range(4))
        streams[v] = [
            read_lane(c, spad, f, f"{v}_", pixel, byte, n) if lanes[n] and (v == "x" or f["y_enable"]) else 0
            for n in range(c.vector_lanes)
        ]
    turn = i[f["idx_loop"] + 1] if f["idx_loop"] < 3 else 0
    idx = (f["idx_base"] + k + turn * f["idx_step"]) % 2**17
    ends = all(i[n] == f[f"n{n}"] - 1 for n in range(f["idx_loop"] + 1))
    return Beat(streams["x"], streams["y"], idx, None, lanes, ends)
