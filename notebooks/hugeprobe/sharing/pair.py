"""Two processes that share memory: the faults of each, and what smaps says about each.

The first process maps memory of one kind (:class:`~hugeprobe.sharing.kinds.Sharing`), advises and
touches it; the second is handed the descriptor, maps it and reads it. Both are new, and their
memory is looked at from outside while both hold it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hugeprobe import children, linux, smaps
from hugeprobe.areas import too_much
from hugeprobe.errors import NotObservable, NotPermittedError
from hugeprobe.sharing.kinds import RefusedError, Sharing
from hugeprobe.sharing.toucher import Request, Touched
from hugeprobe.sizes import MIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TOUCHER: Final = "hugeprobe.sharing.toucher"
_PMDS: Final = 16
"""Length of the memory in PMDs: 32 MiB on x86-64."""
_TIMEOUT: Final = 60.0
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class View:
    """The memory as one process sees it.

    Parameters
    ----------
    minor_faults, major_faults
        Faults of touching it once.
    mapping
        What smaps says about it afterwards.
    """

    minor_faults: int
    major_faults: int
    mapping: smaps.Mapping

    @property
    def hugetlb_kib(self) -> int:
        """Pages of hugetlbfs, which smaps leaves out of the resident memory."""
        return (self.mapping.shared_hugetlb_kib or 0) + (self.mapping.private_hugetlb_kib or 0)

    @property
    def base_kib(self) -> int:
        """Resident memory that no PMD maps."""
        return (self.mapping.rss_kib or 0) - self.mapping.huge_kib


@dataclass(frozen=True, slots=True)
class Shared:
    """What one kind came to.

    Parameters
    ----------
    kind
        The kind.
    alone
        The first process, before there is a second.
    first, second
        Both, while both hold the memory.
    placed
        How many further mappings the kernel was asked for, without saying where.
    aligned
        How many of them it put on a PMD boundary; None for memory that has no descriptor.
    """

    kind: Sharing
    alone: View
    first: View
    second: View
    placed: int
    aligned: int | None


def share_all(kinds: Iterable[Sharing]) -> dict[str, Shared | NotObservable]:
    """Share memory of each kind, one after the other, and return what came of it by its name."""
    return {kind.name: share(kind) for kind in kinds}


def share(kind: Sharing, sizes: PageSizes | None = None) -> Shared | NotObservable:
    """Share memory of one kind between two processes.

    Parameters
    ----------
    kind
        One of :data:`hugeprobe.sharing.kinds.SHARED` or of :data:`~hugeprobe.sharing.kinds.FILES`.
    sizes
        Page sizes; those of this machine if not given.

    Returns
    -------
    Shared or NotObservable
        The latter where the host refuses the kind, or what is asked about it.
    """
    linux.require_linux()
    sizes = sizes or page_sizes()
    length = min(_PMDS * sizes.pmd, max(sizes.pmd, 512 * MIB))
    if missing := too_much(2 * length):
        return missing
    try:
        with kind.opened(length) as descriptor:
            return _share(kind, descriptor, length, sizes)
    except RefusedError as refusal:
        return NotObservable(str(refusal))
    except OSError as error:
        return NotObservable(f"the kernel refused it ({error.strerror})")
    except (smaps.NoSmapsError, NotPermittedError):
        return NotObservable("this system does not show the memory map of a process to its parent")


def _share(kind: Sharing, descriptor: int, length: int, sizes: PageSizes) -> Shared | NotObservable:
    forks = descriptor < 0
    writer = Request(
        descriptor,
        length,
        off_boundary=0,
        pmd=sizes.pmd,
        base=sizes.base,
        write=kind.written,
        before=kind.before,
        after=kind.after,
        fork=forks,
    )
    off_boundary = sizes.base if kind.second_off_boundary else 0
    reader = Request(descriptor, length, off_boundary, sizes.pmd, sizes.base, write=False)
    with _touching(writer) as steps:
        first = next(steps)
        if first.refusal:
            advice = kind.before or kind.after
            asked = f"MADV_{advice.name}" if advice else "it"
            return NotObservable(f"the kernel refused {asked} ({first.refusal})")
        alone = _view(first)
        if forks:
            return Shared(kind, alone, *_views(first, next(steps)), 0, None)
        with _touching(reader) as steps_of_second:
            both = _views(first, next(steps_of_second))
    return Shared(kind, alone, *both, _TRIES, _aligned(descriptor, length, sizes))


@contextmanager
def _touching(request: Request) -> Iterator[Iterator[Touched]]:
    """Start a process; it waits after each step until the next is asked for, or until the end."""
    handed_on = [request.descriptor] if request.descriptor >= 0 else []
    with children.talking(_TOUCHER, [], {}, _TIMEOUT, handed_on) as child:
        steps = child.steps(request.encode())
        yield map(Touched.decode, steps)
        for _ in steps:
            pass


def _views(first: Touched, second: Touched) -> tuple[View, View]:
    return _view(first), _view(second)


def _view(touched: Touched) -> View:
    (mapping,) = smaps.snapshot(touched.pid).within(touched.start, touched.start + 1)
    return View(touched.minor_faults, touched.major_faults, mapping)


def _aligned(descriptor: int, length: int, sizes: PageSizes) -> int:
    """Let the kernel place mappings that are not touched; count those on a PMD boundary.

    A base page is mapped before each, so that none is aligned because its neighbour is.
    """
    starts = []
    fillers = []
    for _ in range(_TRIES):
        fillers.append(linux.map_anonymous(sizes.base, access=linux.PROT_NONE))
        starts.append(linux.map_shared(descriptor, length, access=linux.PROT_READ))
    for start in starts:
        linux.unmap(start, length)
    for start in fillers:
        linux.unmap(start, sizes.base)
    return sum(start % sizes.pmd == 0 for start in starts)
