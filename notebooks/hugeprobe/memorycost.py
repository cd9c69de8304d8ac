"""What huge pages cost in memory: writes that are far apart, and writes after a fork.

A huge page comes whole: one written byte brings 2 MiB. And a page that two processes share since a
fork is copied at the first write; of a huge page the kernel copies only the base page that was
written, and maps the rest by base pages from then on (``do_huge_pmd_wp_page()`` in
``mm/huge_memory.c``; since Linux 5.8 it splits the mapping before it copies).

The experiment runs in a process of its own, because it forks, which one with threads should not.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hugeprobe.areas import Resident, aligned_area, resident, too_much, touch
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.linux import Advice, advise
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hugeprobe.placement import Span

STRIDE_KIB: Final = 64
"""Distance of the bytes that are written in the first experiment, in KiB."""
_PMDS: Final = 16
"""Length of the memory in PMDs: 32 MiB on x86-64."""
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kind of page came to.

    Parameters
    ----------
    huge
        Whether huge pages were asked for; else they were forbidden to the memory.
    apart
        What is resident after one byte of each :data:`STRIDE_KIB` was written.
    full
        What is resident after every byte was written.
    forked
        The same memory after a fork, when its owner has written one byte of each PMD.
    """

    huge: bool
    apart: Resident
    full: Resident
    forked: Resident


@dataclass(frozen=True, slots=True)
class Costs:
    """Both kinds of page on the same memory.

    Parameters
    ----------
    length_kib, pmd_kib
        Length of the memory, and of what one PMD entry maps.
    base, huge
        With huge pages forbidden, and asked for.
    """

    length_kib: int
    pmd_kib: int
    base: Cost
    huge: Cost


def measure() -> Costs | NotObservable:
    """Measure both in a process of its own.

    Raises
    ------
    ProbeError
        If that process fails.
    """
    sizes = page_sizes()
    length = _PMDS * sizes.pmd
    if missing := too_much(2 * length):
        return missing
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", "hugeprobe.memorycost"],
        capture_output=True,
        text=True,
        env=env,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ProbeError(
            "The memory that huge pages cost was to be measured in a process of its own, but that "
            f"ended with status {done.returncode}. Its last words: {last}"
        )
    told = json.loads(done.stdout)
    if "reason" in told:
        return NotObservable(str(told["reason"]))
    base, huge = (_cost(each) for each in told["costs"])
    return Costs(length // KIB, sizes.pmd // KIB, base, huge)


def _cost(told: dict[str, Any]) -> Cost:
    found = {name: Resident(**told[name]) for name in ("apart", "full", "forked")}
    return Cost(bool(told["huge"]), **found)


def _measure_here(length: int, sizes: PageSizes, *, huge: bool) -> Cost:
    with aligned_area(length, sizes) as span:
        advise(span.start, span.length, Advice.HUGEPAGE if huge else Advice.NOHUGEPAGE)
        _write_apart(span, STRIDE_KIB * KIB)
        apart = resident(span)
        touch(span)
        full = resident(span)
        with _forked():
            _write_apart(span, sizes.pmd)
            return Cost(huge, apart, full, resident(span))


def _write_apart(span: Span, stride: int) -> None:
    for at in range(span.start, span.end, stride):
        ctypes.memset(at, 2, 1)


@contextmanager
def _forked() -> Iterator[None]:
    """Have a child that shares all memory and does nothing, until the block ends."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until the parent closes its end
        os._exit(0)
    try:
        yield
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)


def _main() -> None:
    sizes = page_sizes()
    try:
        costs = [_measure_here(_PMDS * sizes.pmd, sizes, huge=huge) for huge in (False, True)]
    except OSError as error:
        print(json.dumps({"reason": f"the kernel refused the advice ({error.strerror})"}))
        return
    print(json.dumps({"costs": [dataclasses.asdict(cost) for cost in costs]}))


if __name__ == "__main__":
    _main()
