"""Which pages are in memory: of a recorded file, of this process, of others."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import pagemap
from hugeprobe.errors import NotObservable, ProcessGoneError
from hugeprobe.linux import PROT_NONE, Advice, advise, map_anonymous, unmap
from hugeprobe.placement import Span
from hugeprobe.sizes import page_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE = mmap.PAGESIZE
PRESENT, SWAPPED, EXCLUSIVE = 1 << 63, 1 << 62, 1 << 56

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no page map to read")


def recorded(root: Path, words: list[int]) -> Path:
    (root / "proc/7").mkdir(parents=True)
    (root / "proc/7/pagemap").write_bytes(np.array(words, np.uint64).tobytes())
    return root


@pytest.fixture
def four_pages() -> Iterator[Span]:
    """Four base pages of which the second and the third were written to."""
    start = map_anonymous(4 * PAGE)
    ctypes.memset(start + PAGE, 1, 2 * PAGE)
    yield Span(start, start + 4 * PAGE)
    unmap(start, 4 * PAGE)


def test_words_of_a_recorded_map(tmp_path: Path) -> None:
    words = [0, PRESENT, SWAPPED, PRESENT | EXCLUSIVE | 5, EXCLUSIVE, PRESENT]
    root = recorded(tmp_path, words)
    found = pagemap.present(7, [Span(0, 4 * PAGE), Span(5 * PAGE, 6 * PAGE)], root)
    assert not isinstance(found, NotObservable)
    assert found.tolist() == [False, True, False, True, True]


def test_pages_of_each_range(tmp_path: Path) -> None:
    own = PRESENT | EXCLUSIVE
    root = recorded(tmp_path, [0, own, PRESENT, own, own, own, SWAPPED, 0])
    with pagemap.opened(7, root) as pages:
        assert isinstance(pages, pagemap.PageMap)
        counts = pages.ranges([Span(0, 4 * PAGE), Span(6 * PAGE, 8 * PAGE)], 2 * PAGE)
        assert pages.ranges([], 2 * PAGE).own.tolist() == []
    assert counts.present.tolist() == [1, 2, 0]
    assert counts.own.tolist() == [1, 1, 0]


@given(
    st.lists(st.booleans(), min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 59)), max_size=4),
    st.integers(1, 12),
)
def test_blocks_of_any_size_give_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    there: list[bool],
    ends: list[tuple[int, int]],
    at_once: int,
) -> None:
    root = recorded(tmp_path_factory.mktemp("tree"), [PRESENT * each for each in there])
    cut = [sorted(min(end, len(there)) for end in pair) for pair in ends]
    spans = [Span(start * PAGE, end * PAGE) for start, end in cut]
    expected = [each for start, end in cut for each in there[start:end]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pagemap, "_PAGES_AT_ONCE", at_once)
        found = pagemap.present(7, spans, root)
        with pagemap.opened(7, root) as pages:
            assert isinstance(pages, pagemap.PageMap)
            single = pages.ranges(spans, PAGE)
    assert not isinstance(found, NotObservable)
    assert found.tolist() == expected == single.present.astype(bool).tolist()


@linux
def test_pages_of_this_process(four_pages: Span) -> None:
    advise(four_pages.start, four_pages.length, Advice.NOHUGEPAGE)
    found = pagemap.present("self", [four_pages])
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    assert found.tolist() == [False, True, True, False]


@linux
def test_pages_that_only_were_read_are_not_the_process_s_own(four_pages: Span) -> None:
    advise(four_pages.start, four_pages.length, Advice.NOHUGEPAGE)
    ctypes.string_at(four_pages.start, 1)  # which maps the zero page
    with pagemap.opened("self") as pages:
        if isinstance(pages, NotObservable):
            pytest.skip(str(pages))
        counts = pages.ranges([four_pages], PAGE)
    assert counts.present.tolist() == [1, 1, 1, 0]
    assert counts.own.tolist() == [0, 1, 1, 0]


@linux
def test_addresses_that_are_only_reserved_have_no_pages() -> None:
    pmd = page_sizes().pmd
    start = map_anonymous(65 * pmd, access=PROT_NONE, reserve=False)
    try:
        whole = Span(-(-start // pmd) * pmd, -(-start // pmd) * pmd + 64 * pmd)
        with pagemap.opened("self") as pages:
            if isinstance(pages, NotObservable):
                pytest.skip(str(pages))
            assert pages.ranges([whole], pmd).present.tolist() == [0] * 64
    finally:
        unmap(start, 65 * pmd)


@linux
def test_a_map_ends_with_the_memory_that_it_shows() -> None:
    with subprocess.Popen(["sleep", "60"]) as child, pagemap.opened(child.pid) as pages:
        if isinstance(pages, NotObservable):
            child.kill()
            pytest.skip(str(pages))
        assert not pages.ended
        child.kill()
        child.wait()
        assert pages.ended
        with pytest.raises(ProcessGoneError, match="ended or executes another program"):
            pages.present([Span(0, PAGE)])


@linux
def test_a_map_ends_where_another_program_is_executed() -> None:
    script = "import os, sys; sys.stdin.readline(); os.execvp('sleep', ['sleep', '60'])"
    with (
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as child,
        pagemap.opened(child.pid) as pages,
    ):
        if isinstance(pages, NotObservable):
            child.kill()
            pytest.skip(str(pages))
        assert not pages.ended
        assert child.stdin
        child.stdin.close()
        while not pages.ended:
            assert child.poll() is None
        child.kill()


def test_no_such_process(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    with pytest.raises(ProcessGoneError, match="no such process"):
        pagemap.present(7, [], tmp_path)


def test_a_kernel_without_page_maps(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)
    assert "CONFIG_PROC_PAGE_MONITOR" in str(pagemap.present(7, [], tmp_path))


def test_a_map_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refuse)
    assert "refuses the page map" in str(pagemap.present(7, [], tmp_path))
