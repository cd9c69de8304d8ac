"""The address space of a process as strips of cells: what is huge, what could be, what cannot."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from hugeprobe.coverage import COULD_BE_HUGE, Backing, adjacent
from hugeprobe.enums import Words
from hugeprobe.errors import NotObservable
from hugeprobe.sizes import KIB
from hugeprobe.smaps import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hugeprobe.coverage import Piece
    from hugeprobe.examine import Examined
    from hugeprobe.owners import Owner
    from hugeprobe.pagemap import Anonymous
    from hugeprobe.smaps import Mapping

    _States: TypeAlias = Callable[[Sequence[tuple[int, int]], Sequence[Piece]], tuple["State", ...]]

_CELLS: Final = 40
"""At most this many cells has a strip, so that it fits into a line of a terminal."""
_ANONYMOUS: Final = (Kind.ANONYMOUS, Kind.HEAP, Kind.STACK)


class State(Words):
    """What most of the resident anonymous memory of a cell is."""

    HUGE = "huge"
    COULD = "could be huge"
    CANNOT = "cannot be as it is mapped"
    NONE = "nothing resident"

    @staticmethod
    def of(backing: Backing) -> State:
        """Return the state of memory with this backing."""
        if backing is Backing.HUGE:
            return State.HUGE
        return State.COULD if backing in COULD_BE_HUGE else State.CANNOT


@dataclass(frozen=True, slots=True)
class Strip:
    """Neighbouring mappings, without gaps between them.

    Parameters
    ----------
    owner
        What most of the memory is used for.
    length_kib
        Length of the address space.
    anon_kib, huge_kib
        Resident anonymous memory, and what of it is huge.
    cell_kib
        Length of a cell: a number of huge pages.
    cells
        What is in each.
    in_order
        Whether cells stand in order of address. Else this kernel does not tell where what lies, and
        there are only as many of each state as there is memory of it.
    """

    owner: Owner
    length_kib: int
    anon_kib: int
    huge_kib: int
    cell_kib: int
    cells: tuple[State, ...]
    in_order: bool


def strips(examined: Examined, at_most: int = 8) -> tuple[Strip, ...]:
    """Return the strips with most memory, largest first; each has at least a huge page of it."""
    of_mapping: defaultdict[int, list[Piece]] = defaultdict(list)
    for piece in examined.pieces:
        of_mapping[piece.mapping.start].append(piece)
    owners = dict(zip((each.start for each in examined.mappings), examined.owners, strict=True))
    runs = [run for run in adjacent(examined.mappings) if run[0].kind in _ANONYMOUS]
    runs = [run for run in runs if _anonymous_kib(run) >= examined.pmd_kib]
    runs.sort(key=_anonymous_kib, reverse=True)
    states = _states_by_address(examined.where)
    found = []
    for run in runs[:at_most]:
        pieces = [piece for mapping in run for piece in of_mapping[mapping.start]]
        of_owner: Counter[Owner] = Counter()
        for mapping in run:
            of_owner[owners[mapping.start]] += mapping.anonymous_kib or 0
        ((owner, _),) = of_owner.most_common(1)
        found.append(_strip(owner, run, pieces, examined.pmd_kib * KIB, states))
    return tuple(found)


def _anonymous_kib(run: Sequence[Mapping]) -> int:
    return sum(mapping.anonymous_kib or 0 for mapping in run)


def _strip(
    owner: Owner,
    run: Sequence[Mapping],
    pieces: Sequence[Piece],
    pmd: int,
    states: _States | None,
) -> Strip:
    start, end = run[0].start // pmd * pmd, -(-run[-1].end // pmd) * pmd
    cell = pmd
    while end - start > cell * _CELLS:
        cell *= 2
    bounds = [(low, low + cell) for low in range(start, end, cell)]
    kib: Counter[State] = Counter()
    for piece in pieces:
        kib[State.of(piece.backing)] += piece.kib
    length = (run[-1].end - run[0].start) // KIB
    return Strip(
        owner,
        length,
        kib.total(),
        kib[State.HUGE],
        cell // KIB,
        states(bounds, pieces) if states else _states_by_amount(len(bounds), kib, length),
        in_order=states is not None,
    )


def _states_by_address(where: Anonymous | NotObservable) -> _States | None:
    """Return a function that finds the state of each cell, if the kernel tells what lies where."""
    if isinstance(where, NotObservable):
        return None
    located, huge_located = where.located(), where.only(huge=True).located()

    def states(bounds: Sequence[tuple[int, int]], pieces: Sequence[Piece]) -> tuple[State, ...]:
        first, length = bounds[0][0], bounds[0][1] - bounds[0][0]
        cannot: Counter[int] = Counter()
        for piece in pieces:  # each that cannot be huge lies within one cell
            if State.of(piece.backing) is State.CANNOT:
                cannot[(piece.start - first) // length] += piece.kib
        return tuple(
            _state(located(low, high), huge_located(low, high), cannot[cell])
            for cell, (low, high) in enumerate(bounds)
        )

    return states


def _state(anonymous: int, huge: int, cannot: int) -> State:
    if not anonymous:
        return State.NONE
    kib = {State.HUGE: huge, State.COULD: anonymous - huge - cannot, State.CANNOT: cannot}
    return max(kib, key=lambda state: kib[state])


def _states_by_amount(cells: int, kib: Counter[State], length_kib: int) -> tuple[State, ...]:
    """Return as many cells of each state as there is memory of it, rounded."""
    found: list[State] = []
    reached = 0
    for state in (State.HUGE, State.COULD, State.CANNOT):
        reached += kib[state]
        found += [state] * (round(cells * min(1, reached / length_kib)) - len(found))
    return (*found, *[State.NONE] * (cells - len(found)))
