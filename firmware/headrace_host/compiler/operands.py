"""Where the operands of a layer are, and the LOAD and STORE commands that move them."""

from __future__ import annotations

from dataclasses import dataclass, field

from headrace.config import NpuConfig
from headrace_host.allocate import Region, ScratchpadAllocator
from headrace_host.compiler.layout import View, make_view, tensor_words
from headrace_host.compiler.stream import DDR_GRANULE, STRIP_LAYERS, Access, Recorder, Space


class OutOfScratchpad(Exception):
    """An operation found no room for its buffers; the compiler then moves a tensor to DDR and starts again."""


@dataclass(eq=False)
class Location:
    """Where a tensor of ``pixels`` by ``channels`` bytes lives: DDR (dense NHWC), the scratchpad, or both.

    A folded tensor packs ``packed`` image pixels into each of these pixels; otherwise ``packed`` is 1. ``loaded``
    counts the leading pixels that the scratchpad already holds. Layer ``writer`` produced it; its last command wrote
    the pixels from ``settled`` on, or the channels from ``settled_channels`` on. ``pitch`` are the bytes from pixel to
    pixel in DDR when the tensor is a part of a larger one, else 0.
    """

    name: str
    pixels: int
    channels: int
    shift: int
    packed: int = 1
    ddr: int | None = None
    region: Region | None = None
    view: View | None = None
    loaded: int = 0
    writer: int = -1
    settled: int = 0
    settled_channels: int = 0
    pitch: int = 0

    @property
    def step(self) -> int:
        """Bytes from pixel to pixel in DDR."""
        return self.pitch or self.channels


def packed_pixels(location: Location, pixels: int) -> int:
    """Pixels of ``location`` that hold any ``pixels`` consecutive image pixels."""
    return pixels if location.packed == 1 else (pixels - 1) // location.packed + 2


@dataclass
class Memory:
    """The machine's memories during a compilation; ``label`` is the number of the layer being compiled."""

    config: NpuConfig
    recorder: Recorder
    scratchpad: ScratchpadAllocator
    ddr_base: int
    label: int = 0
    retired: list[Location] = field(default_factory=list)
    """Tensors that nothing reads any more; they give way when room is needed."""
    _buffers: list[Region] = field(default_factory=list)

    def place(self, location: Location, *, prefer: int) -> bool:
        """Give ``location`` room for all of it in the scratchpad; False when there is none."""
        words = tensor_words(self.config, location.pixels, location.channels, location.shift)
        region = self._allocate(words, prefer)
        if region is None:
            return False
        location.region = region
        location.view = make_view(self.config, region.start, location.pixels, location.channels, location.shift)
        return True

    def _allocate(self, words: int, prefer: int) -> Region | None:
        region = self.scratchpad.allocate(words, prefer=prefer)
        if region is None and self.retired:
            self.free_retired()
            region = self.scratchpad.allocate(words, prefer=prefer)
        return region

    def free_retired(self) -> None:
        """Give the scratchpad room of retired tensors back."""
        for location in self.retired:
            if location.region is not None:
                self.scratchpad.release(location.region)
            location.region = location.view = None
        self.retired.clear()

    def buffer(self, pixels: int, channels: int, shift: int, *, prefer: int) -> View | None:
        """A strip buffer that lives until `release_buffers`."""
        region = self._allocate(tensor_words(self.config, pixels, channels, shift), prefer)
        if region is None:
            return None
        self._buffers.append(region)
        return make_view(self.config, region.start, pixels, channels, shift)

    def scratch(self, name: str, pixels: int, channels: int, *, prefer: int) -> View:
        """A buffer as `buffer` gives, for operation ``name``; raises `OutOfScratchpad` when there is no room."""
        view = self.buffer(pixels, channels, 0, prefer=prefer)
        if view is None:
            raise OutOfScratchpad(name)
        return view

    def window(self, location: Location, least: int, *, prefer: int) -> View | None:
        """A buffer for as many pixels of ``location`` as there is room for; None when that is less than ``least``."""
        run = self.config.rows << location.shift
        planes = -(-location.channels // self.config.word_bytes)
        room = (self.scratchpad.largest(prefer) // planes >> location.shift) * run
        whole = -(-location.pixels // run) * run
        if room < min(least, whole):
            return None
        return self.buffer(min(room, whole), location.channels, location.shift, prefer=prefer)

    def two_buffers(self, location: Location, pixels: int, *, prefer: int) -> list[View]:
        """Two strip buffers for ``pixels`` of ``location``; fewer when there is no room."""
        views = (self.buffer(pixels, location.channels, location.shift, prefer=prefer) for _ in range(2))
        return [view for view in views if view is not None]

    def release_buffers(self) -> None:
        """Give all strip buffers back."""
        for region in self._buffers:
            self.scratchpad.release(region)
        self._buffers.clear()

    def load(self, location: Location, first: int, last: int, view: View, at: int, *more: Access) -> None:
        """LOAD pixels ``[first, last)`` of ``location`` from DDR to pixel ``at`` on of ``view``."""
        self._move("LOAD", location, first, last, view, at, *more)

    def store(self, location: Location, first: int, last: int, view: View, at: int) -> None:
        """STORE pixels ``at`` on of ``view`` to pixels ``[first, last)`` of ``location`` in DDR."""
        self._move("STORE", location, first, last, view, at)

    def _move(self, name: str, location: Location, first: int, last: int, view: View, at: int, *more: Access) -> None:
        assert location.ddr is not None
        count, channels = last - first, location.channels
        loading = name == "LOAD"
        accesses = (
            view.access(self.config, write=loading, pixels=(at, at + count)),
            self.ddr_access(location, first, last, write=not loading),
            *more,
        )
        segments = {"n0": count * channels}
        if location.step != channels:
            segments = {"n0": channels, "n1": count, "s1": location.step, "d1": 1}
        self.recorder.emit(
            name,
            self.label,
            accesses,
            ddr=location.ddr + first * location.step,
            **segments,
            pix_bytes=channels,
            **view.fields("", pixel=at),
        )

    def load_constant(self, address: int, view: View) -> None:
        """LOAD the content at DDR ``address``, which nothing writes, to ``view``."""
        self.recorder.emit(
            "LOAD",
            self.label,
            (view.access(self.config, write=True),),
            ddr=address,
            n0=view.pixels * view.channels,
            pix_bytes=view.channels,
            **view.fields(""),
        )

    def store_columns(self, location: Location, first: int, size: int, view: View) -> None:
        """STORE the first ``size`` channel bytes of every pixel of ``view`` to bytes ``first`` on of ``location``'s."""
        assert location.ddr is not None
        accesses = (view.access(self.config, write=False), self.ddr_access(location, 0, location.pixels, write=True))
        self.recorder.emit(
            "STORE",
            self.label,
            accesses,
            ddr=location.ddr + first,
            n0=size,
            n1=location.pixels,
            s1=location.step,
            d1=1,
            pix_bytes=size,
            **view.fields(""),
        )

    def ddr_access(self, location: Location, first: int, last: int, *, write: bool) -> Access:
        """What touching pixels ``[first, last)`` of ``location`` means for DDR."""
        assert location.ddr is not None
        start = location.ddr - self.ddr_base + first * location.step
        end = location.ddr - self.ddr_base + (last - 1) * location.step + location.channels
        return Access(Space.DDR, ((start // DDR_GRANULE, -(-end // DDR_GRANULE)),), write)


@dataclass(frozen=True)
class Fetched:
    """Where a strip is: from image pixel ``pixel`` of ``view`` on. Who reads it has ``turns`` among its accesses."""

    view: View
    pixel: int
    turns: tuple[Access, ...] = ()


class Source:
    """Serves strips of a tensor to a reader.

    A resident tensor is read in place; one that is in DDR too is loaded as far as needed. Otherwise, where there is
    room for three strips, they follow each other in a window, so that what two strips share is loaded once, until the
    window's end makes a strip begin anew at its start; where there is not, strips take two buffers by turns. A strip
    may be fetched before the one before it has been read. Loads into a resident tensor, which nothing else holds back,
    wait for the readers of the strip before the last, so that they leave the bus to the weights.
    """

    def __init__(self, memory: Memory, location: Location, largest: int, *, prefer: int, slide: bool = False) -> None:
        """``largest``: image pixels of the largest strip; ``slide``: strips overlap, a window is worth
        the room that is free. `fits` tells whether there was room.
        """
        self._memory, self._location = memory, location
        self._run = memory.config.rows << location.shift  # pixels that share words with each other only
        self._first = self._end = 0  # pixels in the window
        self._count = 0  # strips served
        self._window: View | None = None
        self._buffers: list[View] = []
        self.fits = location.view is not None
        if not self.fits:
            pixels = packed_pixels(location, largest)
            if slide:
                self._window = memory.window(location, 3 * -(-pixels // self._run) * self._run, prefer=prefer)
            if self._window is None:
                self._buffers = memory.two_buffers(location, pixels, prefer=prefer)
            self.fits = self._window is not None or len(self._buffers) == 2

    def fetch(self, first: int, last: int) -> Fetched:
        """Make image pixels ``[first, last)`` present."""
        location, count = self._location, self._count
        start, end = first // location.packed, -(-last // location.packed)
        self._count += 1
        if location.view is not None:
            if location.loaded == location.pixels:
                return Fetched(location.view, first)
            turn = self._memory.label % STRIP_LAYERS * 2 + count % 2
            write, read = (Access(Space.STRIP, ((turn, turn + 1),), write) for write in (True, False))
            if location.loaded < end:
                end = self._whole_runs(end, location.pixels)
                self._memory.load(location, location.loaded, end, location.view, location.loaded, write)
                location.loaded = end
            return Fetched(location.view, first, (read,))
        if self._window is None:
            view = self._buffers[count % 2]
            self._memory.load(location, start, end, view, 0)
            return Fetched(view, first - start * location.packed)
        assert self._first <= start <= self._end or not self._end
        if end - self._first > self._window.pixels:
            self._first = self._end = start
        if self._end < end:
            end = self._first + self._whole_runs(end - self._first, location.pixels - self._first)
            self._memory.load(location, self._end, end, self._window, self._end - self._first)
            self._end = end
        return Fetched(self._window, first - self._first * location.packed)

    def _whole_runs(self, pixels: int, most: int) -> int:
        """``pixels`` and what else shares their words, so that the next load does not wait for readers of these."""
        return min(-(-pixels // self._run) * self._run, most)


class Sink:
    """Takes strips of a tensor from a writer: in place, with a copy to DDR when the tensor has an address there."""

    def __init__(self, memory: Memory, location: Location, largest: int, *, prefer: int) -> None:
        self._memory, self._location = memory, location
        self._turn = 0
        self._buffers = [] if location.view is not None else memory.two_buffers(location, largest, prefer=prefer)
        self.fits = location.view is not None or len(self._buffers) == 2

    def open(self, first: int) -> tuple[View, int]:
        """The view to write the strip from pixel ``first`` on to, and the pixel at which it starts there."""
        if self._location.view is not None:
            return self._location.view, first
        view = self._buffers[self._turn]
        self._turn ^= 1
        return view, 0

    def close(self, first: int, last: int, view: View, at: int) -> None:
        """The strip has been written: send it to DDR if it belongs there."""
        if self._location.ddr is not None:
            self._memory.store(self._location, first, last, view, at)
        self._location.loaded = self._location.pixels
