"""How long a snapshot takes, against the kernel's own work and against psutil.

Not a test: times are noisy, so they are printed, as ratios of interleaved runs, and never asserted.
Standard output has one ``name: value`` row for each; standard error says what is behind them.

``snapshot_over_raw``
    ``smaps.snapshot`` over the bare kernel read. A snapshot has every numeric field as a column,
    and permissions, offset, device, inode, name and kind of every mapping; what is made only when
    asked for are the :class:`Mapping` objects themselves and the splitting of their flags.
``snapshot_with_objects_over_raw``
    The same and a list of all :class:`Mapping` objects.
``psutil_over_snapshot``
    ``psutil.Process.memory_maps(grouped=False)`` over ``smaps.snapshot``.
``psutil_over_snapshot_with_objects``
    The same, when both make an object of every mapping.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

import psutil

NOTEBOOKS: Final = Path(__file__).parents[1] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))

from hugeprobe import smaps  # noqa: E402 - importable only from here on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAPPINGS: Final = 20_000
ROUNDS: Final = 15

_CHILD: Final = f"""
import ctypes, sys
from hugeprobe.linux import PROT_NONE, Advice, advise, map_anonymous, unmap

KIB, PMD = 1024, 2048 * 1024
LENGTHS = [4 * KIB, 64 * KIB, 1024 * KIB, 3072 * KIB, 16 * KIB, 256 * KIB, 2052 * KIB, 12 * KIB]
RESERVED = {MAPPINGS} * 512 * KIB
position = map_anonymous(RESERVED, access=PROT_NONE, reserve=False)
# Memory and inaccessible space take turns, so that no two neighbours merge.
for number in range({MAPPINGS} // 2):
    huge = number % 250 == 0
    length = 4 * PMD if huge else LENGTHS[number % len(LENGTHS)]
    start = map_anonymous(length, at=position + 4 * KIB)
    if huge:
        advise(start, length, Advice.HUGEPAGE)
    ctypes.memset(start, 1, length if huge else 8 * KIB if length > 4 * KIB else 0)
    position = start + length
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def large_process() -> Iterator[int]:
    """Start a process of at least ``MAPPINGS`` mappings; give its number; end it."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(NOTEBOOKS)},
    )
    with child:  # on leaving, its standard input is closed, and so it ends
        if not (child.stdout and child.stdout.readline()):
            raise SystemExit("the process to look at could not be made: see vm.max_map_count")
        yield child.pid


def raw_read(pid: int) -> None:
    """Have the kernel write smaps, and keep nothing."""
    buffer = bytearray(1 << 16)
    with Path(f"/proc/{pid}/smaps").open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def seconds(run: Callable[[], object]) -> float:
    """Return how long ``run`` takes; what it returns is freed outside that time."""
    start = time.perf_counter()
    result = run()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def snapshot_rows() -> dict[str, float]:
    """Measure the four ratios, in rounds in which every reader has one turn."""
    with large_process() as pid:
        process = psutil.Process(pid)
        readers: dict[str, Callable[[], object]] = {
            "raw": lambda: raw_read(pid),
            "snapshot": lambda: smaps.snapshot(pid),
            "objects": lambda: list(smaps.snapshot(pid)),
            "psutil": lambda: process.memory_maps(grouped=False),
        }
        for run in readers.values():
            run()
        rounds = [{name: seconds(run) for name, run in readers.items()} for _ in range(ROUNDS)]
        count = len(smaps.snapshot(pid))
    for name in readers:
        times = sorted(each[name] * 1e3 for each in rounds)
        print(
            f"{name}: median {median(times):.1f} ms, {times[0]:.1f} to {times[-1]:.1f} ms, "
            f"{median(times) / count * 1e3:.2f} µs a mapping",
            file=sys.stderr,
        )
    print("raw is the limit: no reader can be faster than the kernel writes.", file=sys.stderr)

    def ratio(over: str, under: str) -> float:
        return median(each[over] / each[under] for each in rounds)

    return {
        "snapshot_over_raw": ratio("snapshot", "raw"),
        "snapshot_with_objects_over_raw": ratio("objects", "raw"),
        "psutil_over_snapshot": ratio("psutil", "snapshot"),
        "psutil_over_snapshot_with_objects": ratio("psutil", "objects"),
    }


def main() -> None:
    """Print the rows."""
    for name, value in snapshot_rows().items():
        print(f"{name}: {value:.2f}")


if __name__ == "__main__":
    main()
