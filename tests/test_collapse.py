"""Collapse: what is planned, what is done to real processes, and what stays as it was."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import areas, collapse, linux, pagemap, smaps
from hugeprobe.collapse import CollapsePlan, LeftOut, Outcome, Refusal
from hugeprobe.errors import (
    BadRequestError,
    NotObservable,
    NotPermittedError,
    ProbeError,
    ProcessGoneError,
)
from hugeprobe.placement import Span
from hugeprobe.sizes import KIB, PageSizes, page_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SIZES = PageSizes()
PMD, PMD_KIB, PAGES = SIZES.pmd, SIZES.pmd // KIB, SIZES.pmd // SIZES.base
PRESENT, OWN = 1 << 63, 1 << 63 | 1 << 56

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="there are no huge pages")


# Planning -----------------------------------------------------------------------------------------


def mapping(
    start: int, end: int, kib: int, *, huge: int = 0, flags: str = "rd", name: str = ""
) -> str:
    """One mapping as the kernel prints it; addresses in bytes."""
    inode = 7 if name.startswith("/") else 0
    return (
        f"{start:08x}-{end:08x} rw-p 00000000 00:00 {inode}  {name}\n"
        f"Size: {(end - start) // KIB:8} kB\nRss: {kib:8} kB\nAnonymous: {kib:8} kB\n"
        f"AnonHugePages: {huge:8} kB\nVmFlags: {flags} \n"
    )


@contextmanager
def page_map(root: Path, words: dict[int, list[int]]) -> Iterator[pagemap.PageMap]:
    """A recorded page map with ``words`` from each address on."""
    (root / "proc/7").mkdir(parents=True, exist_ok=True)
    with (root / "proc/7/pagemap").open("wb") as file:
        for start, each in words.items():
            file.seek(start // SIZES.base * 8)
            file.write(np.array(each, np.uint64).tobytes())
        file.truncate(1 << 22)
    with pagemap.opened(7, root) as pages:
        assert isinstance(pages, pagemap.PageMap)
        yield pages


def planned(root: Path, text: str, words: dict[int, list[int]], **options: Any) -> CollapsePlan:
    with page_map(root, words) as pages:
        return collapse.plan(smaps.parse(text.encode()), pages, sizes=SIZES, **options)


def left_out(plan: CollapsePlan) -> dict[LeftOut, int]:
    return {reason: kib for reason, kib in plan.left_out.items() if kib}


def test_a_full_range_and_the_edges_around_it(tmp_path: Path) -> None:
    start, end = 2 * PMD - 8 * KIB, 3 * PMD + 4 * KIB
    plan = planned(tmp_path, mapping(start, end, PMD_KIB + 12), {start: [OWN] * (PAGES + 3)})
    assert plan.spans == (Span(2 * PMD, 3 * PMD),)
    assert (plan.base_kib, plan.growth_kib) == (PMD_KIB, 0)
    assert left_out(plan) == {LeftOut.OUTSIDE: 12}


def test_a_mapping_without_a_whole_range(tmp_path: Path) -> None:
    start = 2 * PMD + 4 * KIB
    plan = planned(tmp_path, mapping(start, start + PMD, PMD_KIB), {start: [OWN] * PAGES})
    assert plan == CollapsePlan((), 0, 0, {**dict.fromkeys(LeftOut, 0), LeftOut.OUTSIDE: PMD_KIB})


def test_ranges_by_what_they_hold(tmp_path: Path) -> None:
    """Full, half empty, nearly empty, shared, full, untouched."""
    half, few = PAGES // 2, 3
    words = [
        *([OWN] * PAGES),
        *([OWN] * half + [0] * (PAGES - half)),
        *([OWN] * few + [0] * (PAGES - few)),
        *([PRESENT] * PAGES),
        *([OWN] * PAGES),
    ]
    kib = 4 * (3 * PAGES + half + few)
    text = mapping(2 * PMD, 8 * PMD, kib)
    plan = planned(tmp_path, text, {2 * PMD: words})
    assert plan.spans == (Span(2 * PMD, 4 * PMD), Span(6 * PMD, 7 * PMD))
    assert (plan.base_kib, plan.growth_kib) == (4 * (2 * PAGES + half), 4 * half)
    assert left_out(plan) == {LeftOut.SPARSE: 4 * few, LeftOut.SHARED: PMD_KIB}

    strict = planned(tmp_path, text, {2 * PMD: words}, min_resident=1)
    assert strict.spans == (Span(2 * PMD, 3 * PMD), Span(6 * PMD, 7 * PMD))
    assert strict.growth_kib == 0

    loose = planned(tmp_path, text, {2 * PMD: words}, min_resident=few / PAGES)
    assert loose.spans == (Span(2 * PMD, 5 * PMD), Span(6 * PMD, 7 * PMD))
    assert loose.growth_kib == 4 * (half + PAGES - few)


def test_what_is_huge_already_is_neither_planned_nor_left_out(tmp_path: Path) -> None:
    huge = mapping(2 * PMD, 4 * PMD, 2 * PMD_KIB, huge=2 * PMD_KIB)
    mixed = mapping(6 * PMD, 8 * PMD, 2 * PMD_KIB, huge=PMD_KIB)
    plan = planned(tmp_path, huge + mixed, {6 * PMD: [OWN] * 2 * PAGES})
    assert plan.spans == (Span(6 * PMD, 8 * PMD),)
    assert (plan.base_kib, plan.growth_kib, left_out(plan)) == (PMD_KIB, 0, {})


@pytest.mark.parametrize(
    ("flags", "name", "reason"),
    [
        ("rd wr", "[heap]", None),
        ("rd wr", "[anon: glibc: malloc]", None),
        ("rd hg", "", None),
        ("rd nh", "", LeftOut.FORBIDDEN),
        ("rd ht", "", LeftOut.FORBIDDEN),
        ("rd pf io de", "", LeftOut.FORBIDDEN),
        ("rd", "[stack]", LeftOut.OTHER),
        ("rd", "/usr/lib/libexample.so", LeftOut.OTHER),
    ],
)
def test_kinds_of_mappings(tmp_path: Path, flags: str, name: str, reason: LeftOut | None) -> None:
    text = mapping(2 * PMD, 3 * PMD, PMD_KIB, flags=flags, name=name)
    plan = planned(tmp_path, text, {2 * PMD: [OWN] * PAGES})
    assert left_out(plan) == ({reason: PMD_KIB} if reason else {})
    assert bool(plan.spans) is (reason is None)
    forbidden = planned(tmp_path, text, {2 * PMD: [OWN] * PAGES}, forbidden=True)
    assert forbidden.spans == ()


def test_without_a_page_map_every_range_holds_alike() -> None:
    unknown = NotObservable("it is hidden")
    for kib, spans, growth in (
        (3 * PMD_KIB // 2, (Span(2 * PMD, 4 * PMD),), PMD_KIB // 2),
        (PMD_KIB // 2, (), 0),
    ):
        snapshot = smaps.parse(mapping(2 * PMD, 4 * PMD, kib).encode())
        plan = collapse.plan(snapshot, unknown, sizes=SIZES)
        assert (plan.spans, plan.growth_kib) == (spans, growth)
        assert plan.base_kib + sum(plan.left_out.values()) == kib


WORD = st.sampled_from([0, PRESENT, OWN])


@given(
    st.lists(
        st.tuples(st.integers(0, 1024), st.lists(st.tuples(st.integers(1, 900), WORD), max_size=4)),
        max_size=3,
    ),
    st.sampled_from(["rd", "rd nh"]),
    st.floats(0.01, 1),
)
def test_every_kib_is_huge_planned_or_left_out(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: list[tuple[int, list[tuple[int, int]]]],
    flags: str,
    min_resident: float,
) -> None:
    at, text, anonymous = PMD, "", 0
    words: dict[int, list[int]] = {}
    for gap, stretches in drawn:
        at += (gap + 1) * SIZES.base
        here = [word for count, word in stretches for _ in range(count)]
        if here:
            kib = 4 * sum(word != 0 for word in here)
            text += mapping(at, at + len(here) * SIZES.base, kib, flags=flags)
            words[at], anonymous = here, anonymous + kib
            at += len(here) * SIZES.base
    if not text:
        return
    plan = planned(tmp_path_factory.mktemp("tree"), text, words, min_resident=min_resident)
    assert plan.base_kib + sum(plan.left_out.values()) == anonymous
    assert min(plan.left_out.values()) >= 0
    length = sum(span.length for span in plan.spans) // KIB
    assert plan.base_kib + plan.growth_kib >= length >= plan.base_kib
    assert all(span.start % PMD == span.length % PMD == 0 for span in plan.spans)


@pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(BadRequestError, match="above 0 and at most 1"):
        collapse.plan([], NotObservable("unused"), min_resident=share)


# Giving ranges to the kernel ----------------------------------------------------------------------


def test_a_run_that_is_taken_is_given_once() -> None:
    given: list[Span] = []
    assert collapse._collapse(Span(0, 4 * PMD), given.append, PMD) == []
    assert given == [Span(0, 4 * PMD)]


def test_a_run_that_is_refused_is_given_range_by_range() -> None:
    answers = {1: errno.EAGAIN, 2: errno.EAGAIN, 3: errno.ENOMEM}

    def advise(span: Span) -> None:
        for number, error in answers.items():
            if span.start <= number * PMD < span.end:
                raise OSError(error, os.strerror(error))

    refusals = collapse._joined(collapse._collapse(Span(0, 5 * PMD), advise, PMD))
    assert refusals == [
        Refusal(Span(PMD, 3 * PMD), "EAGAIN"),
        Refusal(Span(3 * PMD, 4 * PMD), "ENOMEM"),
    ]
    nothing = collapse.State(0, 0, 0)
    outcome = Outcome(7, CollapsePlan((), 0, 0, {}), nothing, refusals=tuple(refusals))
    assert outcome.refused_kib == {"EAGAIN": 2 * PMD_KIB, "ENOMEM": PMD_KIB}
    assert set(outcome.refused_kib) <= set(collapse.MEANINGS)


@pytest.mark.parametrize("error", [errno.EPERM, errno.ESRCH])
def test_an_error_of_the_process_ends_it(error: int) -> None:
    def advise(span: Span) -> None:
        raise OSError(error, "")

    with pytest.raises((PermissionError, ProcessLookupError)):
        collapse._collapse(Span(0, 5 * PMD), advise, PMD)


def test_pieces_of_a_bounded_rate() -> None:
    assert collapse._step(None, PMD) == 16 * PMD
    assert collapse._step(1, PMD) == PMD
    assert collapse._step(100, PMD) == 5 * PMD
    assert collapse._step(10**6, PMD) == 16 * PMD
    assert list(collapse._pieces([Span(0, 5 * PMD), Span(9 * PMD, 10 * PMD)], 2 * PMD)) == [
        Span(0, 2 * PMD),
        Span(2 * PMD, 4 * PMD),
        Span(4 * PMD, 5 * PMD),
        Span(9 * PMD, 10 * PMD),
    ]


# This process -------------------------------------------------------------------------------------


@contextmanager
def base_pages(ranges: int, *, touched: int | None = None) -> Iterator[Span]:
    """Give aligned memory of which the first bytes of each range are touched on base pages."""
    sizes = page_sizes()
    length = ranges * sizes.pmd
    if missing := areas.too_much(2 * length):
        pytest.skip(str(missing))
    linux.set_thp_disabled(True)
    try:
        with areas.aligned_area(length, sizes) as span:
            for start in range(span.start, span.end, sizes.pmd):
                ctypes.memset(start, 1 + start // sizes.pmd % 255, touched or sizes.pmd)
            linux.set_thp_disabled(False)
            yield span
    finally:
        linux.set_thp_disabled(False)


def content(span: Span) -> bytes:
    return ctypes.string_at(span.start, span.length)


@linux_only
def test_own_memory_becomes_huge_and_stays_what_it_was() -> None:
    with base_pages(4) as span:
        before = content(span)
        won = collapse.collapse_self()
        if isinstance(won, NotObservable):
            pytest.skip(str(won))
        after = areas.resident(span)
        assert after.anon_kib == span.length // KIB
        assert content(span) == before
        if after.huge_kib < after.anon_kib:
            pytest.skip("this host had no free huge page")
        assert won >= after.huge_kib


@linux_only
def test_own_ranges_that_are_mostly_empty_stay_so() -> None:
    page = page_sizes().base
    with base_pages(3, touched=2 * page) as span:
        won = collapse.collapse_self()
        if isinstance(won, NotObservable):
            pytest.skip(str(won))
        assert areas.resident(span) == areas.Resident(6 * page // KIB, 0)


@linux_only
def test_an_old_kernel_leaves_own_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def advise(*_: object) -> None:
        raise OSError(errno.EINVAL, "")

    monkeypatch.setattr(linux, "advise", advise)
    assert "older than Linux 6.1" in str(collapse.collapse_self())


def carried_out(pid: int, **options: Any) -> Outcome:
    try:
        outcome = collapse.collapse(pid, **options)
    except NotPermittedError as error:
        pytest.skip(str(error))
    if isinstance(outcome, NotObservable):
        pytest.skip(str(outcome))
    return outcome


def refused_in(outcome: Outcome, span: Span) -> int:
    """Return the KiB of ``span`` for which there was no huge page, or not just then."""
    assert {refusal.error for refusal in outcome.refusals} <= set(collapse.MEANINGS)
    return sum(
        max(0, min(each.span.end, span.end) - max(each.span.start, span.start)) // KIB
        for each in outcome.refusals
        if each.error != "EINVAL"
    )


@linux_only
def test_a_process_can_be_itself() -> None:
    """With a descriptor of the process itself, no capability is needed."""
    with base_pages(4) as span:
        dry = collapse.collapse(os.getpid(), dry_run=True)
        assert isinstance(dry, Outcome)
        assert (dry.after, dry.tried_kib, dry.made_huge_kib, dry.growth_kib) == (None, 0, 0, 0)
        assert dry.plan.base_kib >= span.length // KIB
        outcome = carried_out(os.getpid())
        assert outcome.stopped is None
        expected = span.length // KIB - refused_in(outcome, span)
        assert areas.resident(span) == areas.Resident(span.length // KIB, expected)


# Another process ----------------------------------------------------------------------------------

PROGRAM = """
import ctypes, hashlib, os, sys
from hugeprobe import areas, linux
from hugeprobe.sizes import page_sizes
sizes = page_sizes()
ranges, touched, *more = map(int, sys.argv[1:])
linux.set_thp_disabled(True)
with areas.aligned_area(ranges * sizes.pmd, sizes) as span:
    for start in range(span.start, span.end, sizes.pmd):
        ctypes.memset(start, start // sizes.pmd % 255, touched or sizes.pmd)
    linux.set_thp_disabled("off" in os.environ.get("MODE", ""))
    if "fork" in os.environ.get("MODE", "") and not os.fork():
        sys.stdin.read()
        os._exit(0)
    print(span.start, span.end, flush=True)
    for line in sys.stdin:
        print(hashlib.sha256(ctypes.string_at(span.start, span.length)).hexdigest(), flush=True)
    if "exec" in os.environ.get("MODE", ""):
        os.execvp("sleep", ["sleep", "60"])
"""


@dataclass(frozen=True)
class Other:
    """A process that holds memory on base pages, and tells what is in it."""

    process: subprocess.Popen[str]
    span: Span

    @property
    def pid(self) -> int:
        return self.process.pid

    def content(self) -> str:
        assert self.process.stdin
        assert self.process.stdout
        print(file=self.process.stdin, flush=True)
        return self.process.stdout.readline()

    def resident(self) -> areas.Resident:
        within = smaps.snapshot(self.pid).within(self.span.start, self.span.end)
        return areas.Resident(within.total.anonymous_kib, within.total.anon_huge_kib)


@contextmanager
def other(ranges: int = 4, touched: int = 0, mode: str = "") -> Iterator[Other]:
    if missing := areas.too_much(3 * ranges * page_sizes().pmd):
        pytest.skip(str(missing))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ranges), str(touched)],
        cwd=NOTEBOOKS,
        env={**os.environ, "MODE": mode},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            start, end = map(int, process.stdout.readline().split())
            yield Other(process, Span(start, end))
        finally:
            process.kill()


@linux_only
def test_another_process_becomes_huge_and_reads_the_same() -> None:
    with other() as it:
        before = it.content()
        assert it.resident().huge_kib == 0
        dry = collapse.collapse(it.pid, dry_run=True)
        assert isinstance(dry, Outcome)
        assert it.resident().huge_kib == 0
        outcome = carried_out(it.pid, rate_mib_s=10_000)
        kib = it.span.length // KIB
        assert outcome.plan.base_kib >= kib
        assert it.resident() == areas.Resident(kib, kib - refused_in(outcome, it.span))
        assert outcome.after
        assert outcome.after.anonymous_kib - outcome.before.anonymous_kib == outcome.growth_kib
        assert it.content() == before
        again = carried_out(it.pid)
        assert again.made_huge_kib >= 0
        assert it.content() == before


@linux_only
def test_growth_is_told_before_it_happens() -> None:
    sizes = page_sizes()
    with other(2, touched=sizes.base) as it:
        careful = carried_out(it.pid)
        assert careful.plan.left_out[LeftOut.SPARSE] >= 2 * sizes.base // KIB
        assert it.resident() == areas.Resident(2 * sizes.base // KIB, 0)
        loose = carried_out(it.pid, min_resident=sizes.base / sizes.pmd)
        refused = refused_in(loose, it.span)
        if not refused:
            assert loose.plan.growth_kib >= 2 * (sizes.pmd - sizes.base) // KIB
            assert it.resident() == areas.Resident(*[2 * sizes.pmd // KIB] * 2)


@linux_only
def test_memory_that_is_shared_since_a_fork_is_not_copied() -> None:
    with other(mode="fork") as it:
        outcome = carried_out(it.pid)
        assert outcome.plan.left_out[LeftOut.SHARED] >= it.span.length // KIB
        assert it.resident() == areas.Resident(it.span.length // KIB, 0)


@linux_only
def test_a_process_that_forbids_huge_pages() -> None:
    with other(mode="off") as it:
        outcome = carried_out(it.pid)
        if "THP_enabled" not in Path("/proc/self/status").read_text():
            pytest.skip("this kernel does not tell")
        assert (outcome.plan.spans, outcome.tried_kib) == ((), 0)
        assert outcome.plan.left_out[LeftOut.FORBIDDEN] >= it.span.length // KIB


@linux_only
def test_a_number_that_ends_between_plan_and_work_is_left_alone() -> None:
    with other() as it, collapse.prepared(it.pid) as held:
        it.process.kill()
        it.process.wait()
        with pytest.raises(ProcessGoneError, match="Nothing was changed"):
            held.carry_out()


@linux_only
def test_another_program_in_the_same_process_is_left_alone() -> None:
    with other(mode="exec") as it, collapse.prepared(it.pid) as held:
        if isinstance(held.pages, NotObservable):
            pytest.skip(str(held.pages))
        assert it.process.stdin
        it.process.stdin.close()
        while not held.pages.ended:
            assert it.process.poll() is None
        try:
            outcome = held.carry_out()
        except NotPermittedError as error:
            pytest.skip(str(error))
        if isinstance(outcome, NotObservable):
            pytest.skip(str(outcome))
        assert outcome.stopped == "The process executes another program."
        assert (outcome.tried_kib, outcome.after) == (0, None)


def test_a_process_that_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second piece of the work finds it gone; what was done by then is told."""
    with other(17) as it:
        given: list[int] = []

        def advise(_: int, start: int, length: int, __: object) -> None:
            if length and given:
                it.process.kill()
                it.process.wait()
                raise ProcessLookupError
            given.append(length) if length else None

        monkeypatch.setattr(linux, "process_advise", advise)
        outcome = collapse.collapse(it.pid)
    assert isinstance(outcome, Outcome)
    assert outcome.stopped == "The process ended."
    assert outcome.tried_kib == sum(given) // KIB > 0
    assert (outcome.after, outcome.made_huge_kib) == (None, 0)


# What cannot be done ------------------------------------------------------------------------------


@linux_only
def test_no_such_process() -> None:
    with pytest.raises(ProcessGoneError, match="no such process"):
        collapse.collapse(2**22 - 1)


@linux_only
def test_a_zombie() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ProcessGoneError, match="has ended"):
        collapse.collapse(process.pid)
    process.wait()


@linux_only
def test_a_kernel_thread() -> None:
    try:
        name = Path("/proc/2/comm").read_text()
    except OSError:
        name = ""
    if name != "kthreadd\n":
        pytest.skip("kernel threads are not to be seen here")
    with pytest.raises(BadRequestError, match="kernel thread"):
        collapse.collapse(2)


@linux_only
def test_a_thread_is_no_process() -> None:
    found: list[ProbeError] = []

    def ask() -> None:
        try:
            collapse.collapse(threading.get_native_id(), dry_run=True)
        except ProbeError as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "not the number of a process" in str(found[0])


def refuse_with(number: int) -> Callable[..., None]:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@linux_only
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
def test_an_old_kernel(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(linux, "process_advise", refuse_with(number))
    answer = collapse.collapse(os.getpid())
    assert isinstance(answer, NotObservable)
    assert "older than Linux 6.1" in answer.reason


@linux_only
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_without_descriptors(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(linux, "pidfd_open", refuse_with(number))
    with pytest.raises(NotPermittedError, match="a seccomp filter"):
        collapse.collapse(os.getpid())


@pytest.mark.parametrize(
    ("capabilities", "why"),
    [
        ("0000000000000000", "needs the capability CAP_SYS_NICE"),
        ("000001ffffffffff", "a seccomp filter forbids process_madvise"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, capabilities: str, why: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tx\nCapEff:\t{capabilities}\n")
    said = str(collapse._no_capability(7, tmp_path))
    assert why in said
    assert "sudo hugeprobe collapse 7" in said
    assert "collapse_self()" in said


REFUSED = """
import os, platform, subprocess, sys
from hugeprobe import collapse, linux
from hugeprobe.errors import NotPermittedError
if sys.argv[1] == "filter":
    linux._refuse(linux._ARCHITECTURES[platform.machine()], 440)
elif os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
with subprocess.Popen(["sleep", "60"]) as child:
    while b"sleep" not in open(f"/proc/{child.pid}/cmdline", "rb").read():
        pass
    try:
        print(collapse.collapse(child.pid))
    except NotPermittedError as error:
        print(error)
    child.kill()
"""


@linux_only
@pytest.mark.parametrize("how", ["user", "filter"])
def test_a_refusal_changes_nothing_and_says_what_is_missing(how: str) -> None:
    """As an ordinary user, and where a filter knows nothing of process_madvise."""
    if how == "filter" and os.uname().machine not in linux.FILTERED_ARCHITECTURES:
        pytest.skip("no filter is known for this architecture")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, how],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        check=False,
    )
    if "seccomp" in done.stderr or "Invalid argument" in done.stderr:
        pytest.skip("this kernel has no seccomp filters")
    assert done.stderr == ""
    if "older than" in done.stdout:
        pytest.skip(done.stdout)
    assert "the kernel refused" in done.stdout
    assert "Nothing was changed." in done.stdout


@linux_only
@pytest.mark.parametrize("rate", [0, -3])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(BadRequestError, match="above 0, or none"):
        collapse.collapse(os.getpid(), rate_mib_s=rate)


# The command line ---------------------------------------------------------------------------------


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hugeprobe", "collapse", *map(str, arguments)],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        check=False,
    )


@linux_only
def test_the_command() -> None:
    with other() as it:
        before = it.content()
        dry = command(it.pid, "--dry-run")
        assert (dry.returncode, dry.stderr) == (0, "")
        assert f"Process {it.pid} holds" in dry.stdout
        assert "became huge" not in dry.stdout
        assert it.resident().huge_kib == 0
        assert json.loads(command(it.pid, "--dry-run", "--json").stdout)["after"] is None

        done = command(it.pid, "--rate", 5000)
        if done.returncode:
            pytest.skip(done.stderr)
        assert done.stdout.startswith(dry.stdout.splitlines()[0])
        assert "became huge" in done.stdout
        assert it.content() == before

        again = json.loads(command(it.pid, "--json").stdout)
        assert again["before"]["anonymous_kib"] == (
            again["before"]["huge_kib"]
            + again["plan"]["base_kib"]
            + sum(again["plan"]["left_out"].values())
        )
        assert set(again["refused_kib"]) <= set(collapse.MEANINGS)


@linux_only
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([2**22 - 1], "there is no such process"),
        ([os.getpid(), "--min-resident", "2"], "above 0 and at most 1"),
        ([os.getpid(), "--rate", "0"], "above 0, or none"),
    ],
)
def test_mistakes_are_sentences(arguments: list[object], words: str) -> None:
    done = command(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("hugeprobe: ")
    assert words in done.stderr
