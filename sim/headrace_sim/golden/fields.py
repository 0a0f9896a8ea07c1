"""The field values of a command."""

from collections.abc import Iterator, Mapping

__all__ = ["Fields"]


class Fields(Mapping[str, int]):
    """Values by field name, never changed; equal and hashed by identity, so that what follows from them can be kept."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    __eq__ = object.__eq__
    __hash__ = object.__hash__
