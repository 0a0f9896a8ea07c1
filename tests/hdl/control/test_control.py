"""The control block as a whole: order, failures, restart."""

import itertools

import pytest

from headrace.isa import BY_NAME, Cause, Engine
from headrace.isa.assembler import Program, encode
from headrace.registers import REGISTERS, State

from .bench import RING, Bench


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_tokens_order_the_engines_and_end_waits(name: str) -> None:
    bench = Bench(name=name, seed=3)
    program = Program()
    rounds = 5
    for i in range(rounds):
        program.append("LOAD", label=i, signal=[0], **({"wait": [3]} if i else {}))
        program.append("WEIGHT", label=i)
        program.append("MAC", label=i, wait=[0], signal=[1])
        program.append("EPILOGUE", wait=[1], signal=[2, 3])
        program.append("STORE", label=i, wait=[2])
    program.append("END", value=0xDEADBEEF)
    bench.load(program)

    async def host(b: Bench) -> None:
        await b.start(len(program))
        assert await b.wait_irq() == 1
        assert await b.read("END_VALUE") == 0xDEADBEEF
        assert await b.read("STATUS") == State.IDLE
        assert await b.read("RING_HEAD") == len(program)

    bench.run(host)
    when = {(event, e, index): t for t, (event, e, index) in enumerate(bench.log)}
    for i in range(rounds):
        at = 5 * i
        chain = [(Engine.LOAD, at), (Engine.MAC, at + 2), (Engine.EPILOGUE, at + 3), (Engine.STORE, at + 4)]
        for (e0, i0), (e1, i1) in itertools.pairwise(chain):
            assert when["end", e0, i0] < when["begin", e1, i1]
        if i:
            assert when["end", Engine.EPILOGUE, at - 2] < when["begin", Engine.LOAD, at]
    assert [values["label"] for _, values in bench.engines[Engine.WEIGHT].seen] == list(range(rounds))


def test_scalars_and_patches() -> None:
    bench = Bench(seed=4)
    program = Program()
    program.append("SCALAR", dst=2, imm=-5)
    program.append("SCALAR", dst=3, op=1, src=2, imm=12, signal=[7])
    n1 = BY_NAME["LOAD"]["n1"]
    base = f"LOAD ddr=0x1000 s1=100 wait=[7] patch0=s3<<4@ddr patch1=s2@s1 n1={n1.minimum}"
    program = Program.from_text(program.text() + base + "\nVECTOR patch1=s4@x_p0\nEND\n")
    bench.load(program)

    async def host(b: Bench) -> None:
        await b.write("SCALAR4", 9)
        await b.start(len(program))
        assert await b.wait_irq() == 1
        assert await b.read("SCALAR2") == 0xFFFFFFFB
        assert await b.read("SCALAR3") == 7

    bench.run(host)
    _, load = bench.engines[Engine.LOAD].seen[0]
    assert load["ddr"] == 0x1000 + 7 * 16 and load["s1"] == 95
    assert bench.engines[Engine.VECTOR].seen[0][1]["x_p0"] == 9


def test_ring_wraps_and_work_can_be_added() -> None:
    bench = Bench(seed=5)

    async def host(b: Bench) -> None:
        for i in range(5):
            for slot in range(3):
                program = Program()
                program.append(*("LOAD",) if slot < 2 else ("END",), label=3 * i + slot)
                b.load(program, slot=(3 * i + slot) % 4)
            await b.start(3 * (i + 1), size=2)
            assert await b.wait_irq() == 1

    bench.run(host)
    seen = bench.engines[Engine.LOAD].seen
    assert [(index, values["label"]) for index, values in seen] == [(i, i) for i in range(15) if i % 3 != 2]


def _bad_images() -> list[tuple[str, bytes, Engine, int]]:
    reserved_gap = BY_NAME["MAC"].defined_mask.bit_length() + 5
    mac = BY_NAME["MAC"]
    flip = int.from_bytes(encode("MAC"), "little") ^ 1 << reserved_gap
    return [
        ("opcode", bytes([99]) + bytes(127), Engine.CONTROL, 0),
        ("zeros", bytes(128), Engine.CONTROL, 0),
        ("reserved", flip.to_bytes(128, "little"), Engine.MAC, reserved_gap),
        ("opcode before reserved", bytes(127) + b"\x80", Engine.CONTROL, 0),
        ("reserved bit of END", bytes([8]) + bytes(126) + b"\x80", Engine.CONTROL, 1023),
        ("first of two limits", encode("MAC", mode=3, kw=0), Engine.MAC, mac["mode"].offset),
        ("reserved byte", encode("MAC", reserved=4), Engine.MAC, 8),
        ("enum", encode("EPILOGUE", out_type=7), Engine.EPILOGUE, BY_NAME["EPILOGUE"]["out_type"].offset),
        ("minimum", encode("LOAD", n0=0), Engine.LOAD, BY_NAME["LOAD"]["n0"].offset),
        ("machine's limit", encode("STORE", base=0xFFFF), Engine.STORE, BY_NAME["STORE"]["base"].offset),
        ("patch of the header", encode("LOAD", patch0=1 | 3 << 10), Engine.LOAD, 96),
        ("patch bit 15", encode("LOAD", patch1=1 | 1 << 15 | 5 << 10), Engine.LOAD, 112),
    ]


@pytest.mark.regress
def test_malformed_commands_stop_the_machine() -> None:
    bench = Bench(seed=6)
    cases = _bad_images()

    async def host(b: Bench) -> None:
        for i, (why, raw, engine, offset) in enumerate(cases):
            print(why)
            program = Program()
            program.append("SCALAR", dst=1, imm=i)
            program.append("SCALAR", dst=1, op=1, src=1, imm=1)
            b.load(program)
            b.reader.image[RING + 256 : RING + 384] = raw
            await b.start(3)
            await b.expect_error(Cause.MALFORMED, engine, 2, offset)
            assert not any(e.seen for e in b.engines.values())
            await b.restart()
            assert await b.read("SCALAR1") == i + 1
            await b.control("reset")
            for e in b.engines.values():
                e.seen.clear()

    bench.run(host)


@pytest.mark.parametrize("cause", [Cause.WINDOW, Cause.BUS])
def test_fetch_errors(cause: Cause) -> None:
    bench = Bench(seed=7)
    program = Program()
    for i in range(6):
        program.append("LOAD", label=i)
    bench.load(program)
    address = RING + 128 * 3
    bench.reader.refuse, bench.reader.bad = (address, None) if cause is Cause.WINDOW else (None, address)

    async def host(b: Bench) -> None:
        await b.start(6)
        await b.expect_error(cause, Engine.CONTROL, 3, address)
        assert all(index < 3 for index, _ in b.engines[Engine.LOAD].seen)
        await b.restart()

    bench.run(host)


def test_engine_error_is_reported_and_recovered() -> None:
    bench = Bench(seed=8)
    program = Program()
    for _ in range(4):
        program.append("LOAD", signal=[9])
        program.append("MAC", wait=[9])
    bench.load(program)
    bench.engines[Engine.MAC].fail = {3: Cause.OVERFLOW}

    async def host(b: Bench) -> None:
        await b.start(8)
        await b.expect_error(Cause.OVERFLOW, Engine.MAC, 3, 77)
        await b.restart()

    bench.run(host)


@pytest.mark.parametrize("cause", [Cause.WATCHDOG, Cause.ABORT])
def test_a_stuck_engine_is_stopped(cause: Cause) -> None:
    bench = Bench(seed=9)
    program = Program()
    program.append("VECTOR")
    program.append("END")
    bench.load(program)
    bench.engines[Engine.VECTOR].stuck = True

    async def host(b: Bench) -> None:
        await b.write("WATCHDOG", 200)
        if cause is Cause.ABORT:
            await b.write("WATCHDOG", 0)
        await b.start(2)
        await b.ctx.tick().repeat(300)
        if cause is Cause.ABORT:
            assert await b.read("STATUS") == State.RUN
            await b.control("abort")
        await b.expect_error(cause, Engine.CONTROL, 2)
        await b.write("WATCHDOG", 500)
        await b.restart()

    bench.run(host)


def test_reset_while_running_forgets_everything() -> None:
    bench = Bench(seed=10)
    program = Program()
    for _ in range(5):
        program.append("LOAD", signal=[0])
    program.append("MAC", wait=[1])
    bench.load(program)

    async def host(b: Bench) -> None:
        await b.start(6)
        await b.ctx.tick().repeat(150)
        assert await b.read("STATUS") == State.RUN
        await b.restart()
        assert await b.read("IRQ_STATUS") == 0

    bench.run(host)


def test_registers_on_the_bus() -> None:
    bench = Bench(seed=12)

    async def host(b: Bench) -> None:
        assert await b.read("ID") == 0x48445243
        assert await b.read("CAP_ARRAY") == 2 | 2 << 8 | 2 << 16 | 4 << 24
        await b.write("ID", 0)
        assert await b.read("ID") == 0x48445243
        scalar = REGISTERS["SCALAR3"].offset
        await b.write_at(scalar, 0x11223344)
        await b.write_at(scalar, 0xAABBCCDD, strobe=0b0110)
        assert await b.read_at(scalar) == (0x11BBCC44, 0)
        await b.write("RING_BASE_LO", 0xFFFFFFFF)
        assert await b.read("RING_BASE_LO") == 0xFFFFFF80
        for address in (0x018, 0x0C0, 0x140, 0x298, 0xFFC, scalar + 1, scalar + 2):
            assert await b.write_at(address, 0xFFFFFFFF) == 2
            assert await b.read_at(address) == (0, 2)
        assert await b.read_at(scalar) == (0x11BBCC44, 0)
        await b.write("WINDOW1_BASE", 5)
        await b.write("WINDOW1_LIMIT", 9)
        await b.write("WINDOW1_FLAGS", 2)
        window = b.ctx.get(b.dut.windows)[1]
        assert (window.base, window.limit, window.read, window.write) == (5, 9, 0, 1)

    bench.run(host)


def test_counters_snapshot_and_clear() -> None:
    bench = Bench(seed=13)
    program = Program()
    program.append("LOAD")
    program.append("END")
    bench.load(program)
    bench.load(program, slot=2)

    async def host(b: Bench) -> None:
        b.ctx.set(b.dut.events.read_beats, 1)
        await b.start(2)
        await b.wait_irq()
        b.ctx.set(b.dut.events.read_beats, 0)
        assert await b.read("CYCLES_LO") == 0
        await b.control("snapshot")
        first = {n: await b.read(n) for n in ("CYCLES_LO", "CYCLES_HI", "BUSY_LOAD_LO", "BUSY_MAC_LO", "READ_BEATS_LO")}
        assert 0 < first["BUSY_LOAD_LO"] <= 12 and first["BUSY_MAC_LO"] == first["CYCLES_HI"] == 0
        assert first["READ_BEATS_LO"] >= first["CYCLES_LO"] > first["BUSY_LOAD_LO"]
        await b.control("clear")
        assert await b.read("CYCLES_LO") == first["CYCLES_LO"]
        await b.control("snapshot")
        assert await b.read("READ_BEATS_LO") == 0
        assert await b.read("CYCLES_LO") == 0
        await b.start(4)
        await b.wait_irq()
        await b.control("snapshot")
        assert 0 < await b.read("CYCLES_LO") < 400

    bench.run(host)
