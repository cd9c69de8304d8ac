"""Counting around a block, and the faults of other processes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from hugeprobe.counters import Faults, SystemWideSize, counting, faults_of, system_wide
from hugeprobe.errors import MalformedError, NotLinuxError, ProcessGoneError
from hugeprobe.linux import Advice, advise, map_anonymous, unmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Tree = Callable[[str], Path]

STAT = "42 ({}) S 1 42 42 0 -1 4194304 101 202 3 4 5 6 7 8 20 0 1 0 99 1 1\n"
PAGES = 256

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is nothing to count")


@pytest.fixture
def base_pages() -> Iterator[int]:
    """Memory that no huge page may back."""
    length = PAGES * mmap.PAGESIZE
    start = map_anonymous(length)
    advise(start, length, Advice.NOHUGEPAGE)
    yield start
    unmap(start, length)


@linux
def test_an_empty_block_has_no_faults() -> None:
    counts = []
    for _ in range(20):
        with counting() as counted:
            pass
        counts.append(counted.faults)
    # Python takes a page for itself now and then; 3.13 does within the first twenty.
    assert counts.count(Faults(0, 0)) >= 18


@linux
def test_every_touched_page_is_one_fault(base_pages: int) -> None:
    with counting() as counted:
        ctypes.memset(base_pages, 1, PAGES * mmap.PAGESIZE)
    assert counted.minor_faults == PAGES
    assert counted.major_faults == 0


@linux
def test_another_threads_faults_count_for_the_process_only(base_pages: int) -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        ctypes.memset(base_pages, 1, PAGES * mmap.PAGESIZE)
        done.set()

    worker = threading.Thread(target=work)
    worker.start()
    with counting("process") as process, counting() as thread:
        go.set()
        done.wait()
    worker.join()
    assert thread.minor_faults < PAGES <= process.minor_faults


@linux
def test_an_error_in_the_block_is_passed_on_and_counted() -> None:
    counted = counting()
    with pytest.raises(ZeroDivisionError), counted:
        raise ZeroDivisionError
    assert counted.minor_faults >= 0


def test_events_of_a_recorded_tree(tree: Tree) -> None:
    events = system_wide(tree("linux-6.18-vm"))
    assert events.fault_alloc is not None
    assert events.fault_alloc > 0
    assert [size.kib for size in events.sizes] == [2048, 1024, 64]


def test_events_that_a_kernel_does_not_count(tree: Tree) -> None:
    events = system_wide(tree("linux-6.6-no-thp"))
    assert (events.fault_alloc, events.split_page, events.sizes) == (None, None, ())
    assert (events - events).fault_alloc is None


def test_difference_of_events(tree: Tree) -> None:
    root = tree("linux-6.18-vm")
    with counting(root=root) as counted:
        vmstat = root / "proc/vmstat"
        vmstat.write_text(vmstat.read_text().replace("thp_split_pmd ", "thp_split_pmd 1"))
        stats = root / "sys/kernel/mm/transparent_hugepage/hugepages-64kB/stats"
        stats.joinpath("anon_fault_alloc").write_text("24\n")
    events = counted.system_wide
    assert (events.fault_alloc, events.collapse_alloc) == (0, 0)
    assert events.split_pmd is not None
    assert events.split_pmd > 0
    assert events.sizes[2] == SystemWideSize(64, fault_alloc=24, fault_fallback=0)


@pytest.mark.parametrize("command", ["cat", "a b", ":-) S 1 (", "((x) y)", ")"])
def test_faults_of_a_process_of_any_name(tmp_path: Path, command: str) -> None:
    (tmp_path / "proc/42").mkdir(parents=True)
    (tmp_path / "proc/42/stat").write_text(STAT.format(command))
    assert faults_of(42, tmp_path) == Faults(101, 3)
    assert faults_of(42, tmp_path, children=True) == Faults(101 + 202, 3 + 4)


@pytest.mark.parametrize("text", ["", "42 (cat) S 1", STAT.format("cat").replace("101", "x")])
def test_a_stat_file_of_another_form(tmp_path: Path, text: str) -> None:
    (tmp_path / "proc/42").mkdir(parents=True)
    (tmp_path / "proc/42/stat").write_text(text)
    with pytest.raises(MalformedError, match="fields 10 to 13"):
        faults_of(42, tmp_path)


def test_no_process_and_no_linux(tmp_path: Path) -> None:
    with pytest.raises(NotLinuxError):
        faults_of(42, tmp_path)
    (tmp_path / "proc/self").mkdir(parents=True)
    with pytest.raises(ProcessGoneError):
        faults_of(42, tmp_path)


@linux
def test_faults_of_living_processes() -> None:
    before = faults_of("self")
    subprocess.run([sys.executable, "-c", ""], check=True)
    after, with_child = faults_of("self"), faults_of("self", children=True)
    assert before.minor <= after.minor
    assert with_child.minor > after.minor
