"""Ring order: layers that run at the same time are interleaved, weights are streamed ahead of their MAC commands."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from .builder import Atom, Layer
from .operation import Operation

__all__ = ["interleave", "ring_order"]


def interleave(layers: Sequence[Layer], rng: np.random.Generator) -> list[Atom]:
    """Atoms of all layers, each layer's in order; while weights are held only their layer issues MAC commands."""
    queues = [deque(layer.atoms) for layer in layers]
    out: list[Atom] = []
    holder = -1
    favourite = 0
    while any(queues):
        ready = [i for i, queue in enumerate(queues) if queue and (holder in (-1, i) or not queue[0].multiplies)]
        if favourite not in ready or rng.random() < 0.4:
            favourite = int(rng.choice(ready))
        atom = queues[favourite].popleft()
        if atom.multiplies:
            holder = favourite if atom.holds else -1
        out.append(atom)
    return out


def ring_order(atoms: Sequence[Atom], *, queue_depth: int, rng: np.random.Generator) -> list[Operation]:
    """Commands in ring order: every WEIGHT before its MAC, in the order of the MACs, and at most `queue_depth` of them
    before the MAC is fetched: more could fill the queue while the ring waits for that MAC."""
    waiting = deque((number, weight) for number, atom in enumerate(atoms) for weight in atom.weights)
    ahead: deque[int] = deque()
    out: list[Operation] = []
    eager = rng.random()
    for number, atom in enumerate(atoms):
        while waiting and (
            waiting[0][0] == number or _early(atoms[waiting[0][0]], len(ahead), queue_depth, rng, eager)
        ):
            owner, operation = waiting.popleft()
            out.append(operation)
            if operation.name == "WEIGHT":
                ahead.append(owner)
        out.extend(atom.operations)
        while ahead and ahead[0] <= number:
            ahead.popleft()
    return out


def _early(atom: Atom, ahead: int, queue_depth: int, rng: np.random.Generator, eager: float) -> bool:
    """Whether a weight command of a later atom goes into the ring now."""
    return not atom.stored and ahead < queue_depth and bool(rng.random() < eager)
