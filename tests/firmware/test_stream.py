"""Early commands move as far ahead as the memories they touch allow."""

from __future__ import annotations

from headrace_host.compiler.stream import Access, Recorder, Space, schedule


def column(start: int, *, write: bool) -> tuple[Access, ...]:
    return (Access(Space.COLUMN, ((start, start + 4),), write),)


def order(layers: int, *, read_by: int | None = None) -> list[int]:
    """Four layers of a MAC and an EPILOGUE; which commands (2 a layer) a LOAD of the last one goes between.

    EPILOGUE ``read_by`` reads what the LOAD overwrites.
    """
    recorder = Recorder()
    for label in range(3):
        recorder.emit("MAC", label)
        recorder.emit("EPILOGUE", label, column(0 if label == read_by else 8, write=False))
    recorder.emit("MAC", 3)
    recorder.emit_early("LOAD", 3, column(0, write=True), layers=layers)
    recorder.emit("EPILOGUE", 3, column(0, write=False))
    return [command.label for command in schedule(recorder.commands) if command.name != "EPILOGUE"]


def test_a_load_follows_the_first_drain_of_a_layer_before() -> None:
    # What is drained last ends where the next layer starts: nothing is gained, so the command stays.
    assert order(1) == [0, 1, 2, 3, 3]
    assert order(2) == [0, 1, 3, 2, 3]
    assert order(3) == [0, 3, 1, 2, 3]
    assert order(9) == [0, 3, 1, 2, 3]


def test_a_load_stays_behind_what_reads_its_memory() -> None:
    assert order(3, read_by=1) == [0, 1, 3, 2, 3]
    assert order(3, read_by=2) == [0, 1, 2, 3, 3]
