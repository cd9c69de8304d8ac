"""Verdicts on the claims: for each, evidence that turns it; live, only what holds on every host."""

from __future__ import annotations

import dataclasses
import functools
import re
import resource
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe import arms, smaps
from hugeprobe.bench import record as bench_record
from hugeprobe.claims import bounds, catalogue, coalesce, mapcount, pairs, streams
from hugeprobe.claims.coalesce import Coalesced
from hugeprobe.claims.evidence import Gathered, gather
from hugeprobe.claims.mapcount import MapCount
from hugeprobe.claims.rule import _both_ways
from hugeprobe.claims.streams import Streams
from hugeprobe.claims.verdict import Basis, Finding, Verdict
from hugeprobe.compare import Ratio
from hugeprobe.emulate import Measurement
from hugeprobe.errors import NotObservable
from hugeprobe.figures import claims as figures
from hugeprobe.kernels import record as kernels_record
from hugeprobe.placement import Rule, Touch
from hugeprobe.probe import RuleFinding
from hugeprobe.sharing import kinds
from hugeprobe.sharing.pair import Shared, View
from hugeprobe.sizes import page_sizes
from hugeprobe.sweep import TELLING_KIB, Case, modelled

if TYPE_CHECKING:
    from collections.abc import Callable

    from hugeprobe.bench.record import BenchRecord, Run
    from hugeprobe.claims.verdict import Judged
    from hugeprobe.kernels.record import KernelsRecord, RecordedFootprint, RecordedLayout

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
MISSING = NotObservable("it has not been made yet")
SAME = Ratio(1.0, 0.98, 1.02)
SLOWER = Ratio(2.0, 1.8, 2.2)
X86 = (page_sizes().base, page_sizes().pmd) == (4096, 2 << 20)


@functools.cache
def kernels() -> KernelsRecord:
    found = kernels_record.read()
    assert not isinstance(found, NotObservable)
    return found


@functools.cache
def bench() -> BenchRecord:
    found = bench_record.newest()
    assert not isinstance(found, NotObservable)
    return found


def shared(huge: int) -> Shared:
    """Return 32 MiB of shared memory of which so many KiB are huge in both processes."""
    empty = dict.fromkeys(smaps.Mapping._fields)
    mapping = smaps.Mapping(**{**empty, "rss_kib": 32768, "shmem_pmd_kib": huge})  # type: ignore[arg-type]
    view = View(1, 0, mapping)
    return Shared(kinds.SHARED[0], view, view, view, 0, None)


BASE = Gathered(
    release="6.12.0",
    rule=RuleFinding(Rule.MULTIPLES, ()),
    cases=tuple(
        Case(kib, rule, touch, modelled(kib, rule, touch, top_offset_kib=0), MISSING)
        for kib, rule, touch in product(TELLING_KIB, Rule, Touch)
    ),
    small={1536: MISSING},
    coalesced={Rule.FORCED: Coalesced(16, 0.0, 0.67), Rule.MULTIPLES: Coalesced(1, 0.0, 1.0)},
    mapcount=MapCount(2052, 65530, 65400, None),
    streams=Streams(SAME, SLOWER),
    shared={"memfd": shared(0), "memfd, collapsed": shared(32768)},
    kernels=kernels(),
    bench=bench(),
)
"""Records as they are, and in place of what a host shows, what one showed once."""

Change = dict[str, object]


def layouts(rule: Rule, change: Callable[[RecordedLayout], RecordedLayout | None]) -> Change:
    """Change, or with None leave out, what the built kernel of one rule recorded."""
    recorded = kernels()
    changed = tuple(
        replace(kernel, layouts=tuple(c for each in kernel.layouts if (c := change(each))))
        if kernel.origin.startswith("built") and kernel.rule is rule
        else kernel
        for kernel in recorded.kernels
    )
    return {"kernels": replace(recorded, kernels=changed)}


def processes(change: Callable[[RecordedFootprint], RecordedFootprint]) -> Change:
    """Change what OpenVINO took on the kernel with the rule."""
    recorded = kernels()
    changed = tuple(
        replace(kernel, openvino=tuple(map(change, kernel.openvino)))
        if kernel.origin.startswith("built") and kernel.rule is Rule.FORCED
        else kernel
        for kernel in recorded.kernels
    )
    return {"kernels": replace(recorded, kernels=changed)}


def runs(chosen: Callable[[Run], bool], *, slower: float = 1, faults: int | None = None) -> Change:
    """Make some runs so many times as long, or give them another number of faults."""
    recorded = bench()

    def change(run: Run) -> Run:
        if not chosen(run):
            return run
        stages = (
            replace(
                stage,
                seconds=tuple(seconds * slower for seconds in stage.seconds),
                faults=stage.faults if faults is None else (faults,) * len(stage.faults),
            )
            for stage in run.stages
        )
        return replace(run, stages=tuple(stages))

    return {"bench": replace(recorded, runs=tuple(map(change, recorded.runs)))}


def is_mixed(layout: RecordedLayout) -> bool:
    return len(set(layout.lengths)) > 1


def unaligned(layout: RecordedLayout) -> RecordedLayout:
    return replace(layout, mappings=tuple(replace(m, aligned=False) for m in layout.mappings))


def more_faults(process: RecordedFootprint) -> RecordedFootprint:
    return replace(process, inference_faults=(100_000,))


def cases(*, high: bool) -> Change:
    kept = (case for case in BASE.cases if (case.layout.coverage > 0.9) is high)
    return {"cases": tuple(kept)}


def like(other: Rule, layout: RecordedLayout) -> RecordedLayout:
    """Return what the kernel of the other rule recorded of the same list."""
    key = layout.lengths, layout.touch, layout.top_offset
    return next(
        each
        for kernel in pairs.built(kernels())
        if kernel.rule is other and kernel.thp_mode == "always" and not kernel.mthp
        for each in kernel.layouts
        if (each.lengths, each.touch, each.top_offset) == key
    )


def of(workload: str, *names: str) -> Callable[[Run], bool]:
    return lambda run: run.workload.startswith(workload) and run.arm in names


FORCED, MULTIPLES = Rule.FORCED, Rule.MULTIPLES
OFF = arms.OFF.name
TURNS: list[tuple[int, Change, Verdict]] = [
    (1, {}, Verdict.CONFIRMED),
    (1, layouts(FORCED, unaligned), Verdict.REFUTED),
    (
        1,
        layouts(FORCED, lambda x: replace(x, mappings=x.mappings[:1] + unaligned(x).mappings[1:])),
        Verdict.REFUTED,
    ),
    (1, layouts(FORCED, lambda x: unaligned(x) if is_mixed(x) else x), Verdict.IN_PART),
    (2, {}, Verdict.CONFIRMED),
    (2, layouts(FORCED, lambda x: replace(x, gap_kib=0)), Verdict.REFUTED),
    (
        2,
        layouts(MULTIPLES, lambda x: replace(x, gap_kib=4 * (x.touch is Touch.EACH))),
        Verdict.IN_PART,
    ),
    (3, {}, Verdict.IN_PART),
    (3, layouts(FORCED, lambda x: replace(x, huge_kib=0)), Verdict.CONFIRMED),
    (3, layouts(FORCED, lambda x: replace(x, huge_kib=x.anon_kib, vmas=1)), Verdict.REFUTED),
    (4, {}, Verdict.IN_PART),
    (4, layouts(FORCED, lambda x: replace(x, gap_kib=4)), Verdict.CONFIRMED),
    (4, layouts(FORCED, lambda x: None if is_mixed(x) else x), Verdict.REFUTED),
    (5, {}, Verdict.IN_PART),
    (5, layouts(FORCED, lambda x: replace(x, minor_faults=10**6)), Verdict.CONFIRMED),
    (5, layouts(FORCED, lambda x: replace(x, minor_faults=0)), Verdict.REFUTED),
    (6, {}, Verdict.IN_PART),
    (6, {"streams": MISSING}, Verdict.IN_PART),
    (6, {"streams": Streams(Ratio(0.5, 0.4, 0.6), SLOWER)}, Verdict.IN_PART),
    (6, {"streams": Streams(SLOWER, SAME)}, Verdict.CONFIRMED),
    (7, {}, Verdict.NOT_HERE),
    (7, processes(more_faults), Verdict.CONFIRMED),
    (7, processes(lambda x: more_faults(x) if x.advised else x), Verdict.IN_PART),
    (8, {}, Verdict.IN_PART),
    (8, layouts(MULTIPLES, lambda x: None if is_mixed(x) else x), Verdict.CONFIRMED),
    (
        8,
        layouts(MULTIPLES, lambda x: replace(x, vmas=16))
        | {"coalesced": dict.fromkeys(BASE.coalesced, Coalesced(16, 0.0, 0.67))},
        Verdict.REFUTED,
    ),
    (9, {}, Verdict.IN_PART),
    (9, cases(high=True), Verdict.CONFIRMED),
    (9, cases(high=False), Verdict.NOT_HERE),
    (10, {}, Verdict.NOT_HERE),
    (10, runs(of("bert-mini-batches", "default"), slower=40), Verdict.CONFIRMED),
    (10, runs(of("embedding", "default"), slower=40), Verdict.IN_PART),
    (11, {}, Verdict.NOT_HERE),
    (11, runs(of("yolo", OFF), slower=3), Verdict.CONFIRMED),
    (11, runs(of("yolo", arms.COLLAPSE.name), slower=0.3), Verdict.IN_PART),
    (12, {}, Verdict.IN_PART),
    (12, runs(of("bert", OFF), slower=3), Verdict.CONFIRMED),
    (12, runs(of("bert", OFF), faults=0), Verdict.NOT_HERE),
    (13, {}, Verdict.NOT_HERE),
    (13, {"mapcount": MapCount(2052, 65530, None, None)}, Verdict.REFUTED),
    (13, {"mapcount": MapCount(2052, 700, 650, None)}, Verdict.IN_PART),
    (13, {"mapcount": MapCount(2052, 600, 550, None)}, Verdict.CONFIRMED),
    (13, {"mapcount": MapCount(2052, 600, 550, 550)}, Verdict.NOT_HERE),
    (14, {}, Verdict.REFUTED),
    (14, {"release": "6.6.87", "rule": RuleFinding(FORCED, ())}, Verdict.IN_PART),
    (14, {"release": "6.6.87"}, Verdict.REFUTED),
    (15, {}, Verdict.CONFIRMED),
    (15, layouts(FORCED, lambda x: like(MULTIPLES, x)), Verdict.NOT_HERE),
    (16, {}, Verdict.CONFIRMED),
    (16, {"shared": {"memfd": shared(0), "tmpfs huge=always": shared(0)}}, Verdict.NOT_HERE),
    (16, {"shared": {"memfd": shared(0), "tmpfs huge=always": MISSING}}, Verdict.NOT_TESTABLE),
]


def judged(number: int, changes: Change) -> Finding:
    claim = next(claim for claim in catalogue.CLAIMS if claim.number == number)
    return claim.judge(replace(BASE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "changes", "verdict"), TURNS)
def test_other_evidence_gives_another_verdict(
    number: int, changes: Change, verdict: Verdict
) -> None:
    finding = judged(number, changes)
    assert finding.verdict is verdict, finding.reason
    assert finding.reason.endswith(".")


def test_every_claim_is_turned_by_some_evidence() -> None:
    verdicts: dict[int, set[Verdict]] = {}
    for number, _, verdict in TURNS:
        verdicts.setdefault(number, set()).add(verdict)
    assert sorted(verdicts) == [claim.number for claim in catalogue.CLAIMS] == list(range(1, 17))
    assert all(len(found) > 1 for found in verdicts.values())


def test_without_records_and_probes_nothing_is_claimed() -> None:
    blind = replace(
        BASE,
        cases=(),
        small={1536: MISSING},
        coalesced=dict.fromkeys(BASE.coalesced, MISSING),
        mapcount=MISSING,
        streams=MISSING,
        shared={"memfd": MISSING},
        kernels=MISSING,
        bench=MISSING,
    )
    found = {each.claim.number: each.finding for each in catalogue.judge(blind)}
    testable = {n for n, each in found.items() if each.verdict is not Verdict.NOT_TESTABLE}
    assert testable == {6, 14}
    assert all({source.basis for source in found[n].sources} == {Basis.CITED} for n in testable)
    assert all(
        each.reason.startswith("Not observable here")
        for n, each in found.items()
        if n not in testable
    )
    for table in (
        figures.small_table(blind),
        figures.streams_picture(blind.streams),
        figures.coalesced_table(blind.coalesced),
        figures.mapcount_table(blind.mapcount),
        figures.claimed_shapes(blind.bench),
    ):
        assert str(table) == str(MISSING)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_what_goes_both_ways_is_never_confirmed(worse: int, better: int, also: int) -> None:
    verdict = _both_ways(worse, better, also)
    assert (verdict is Verdict.CONFIRMED) == (worse > 0 and better == 0)
    assert (verdict is Verdict.REFUTED) == (worse == 0 and also == 0)


def test_both_kernels_are_compared_list_by_list() -> None:
    found = pairs.pairs(BASE.kernels)
    assert len(found) == 32
    for pair in found:
        assert pair.forced.lengths == pair.multiples.lengths
        assert pair.forced.touch is pair.multiples.touch
    tally = pairs.tally(found, lambda layout: layout.minor_faults)
    assert tally.more
    assert tally.fewer
    assert tally.lists == len(found)
    assert set(pairs.footprints(BASE.kernels)) == {"`always`", "`madvise`, advised"}


def test_the_shapes_of_the_claim() -> None:
    recorded = bench()
    claimed = {cell.workload for cell in recorded.cells if bounds.is_claimed(cell)}
    assert claimed == {"bert-mini-batches", "bert-base"}


def test_a_reason_names_no_speed_up_that_does_not_stand(found: tuple[Judged, ...]) -> None:
    for each in found:
        if each.claim.number in (6, 10):
            continue  # ratios there are shown with what they mean
        for low, high in re.findall(r"\(([\d.]+) to ([\d.]+)\)", each.finding.reason):
            assert not float(low) <= 1 <= float(high), each.finding.reason


# The page -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", catalogue.CLAIMS, ids=lambda claim: str(claim.number))
def test_the_page_has_a_section_for_the_claim(claim: SimpleNamespace) -> None:
    heading = f"(claim-{claim.number})=\n### {claim.number}. {claim.title}\n"
    assert heading in PAGE
    section = re.split(r"^\(claim-\d+\)=|^## ", PAGE.split(heading)[1], flags=re.MULTILINE)[0]
    assert section.lstrip().startswith("> ")
    assert f"claims.ipynb#verdict-{claim.number}\n" in section
    assert "\nEvidence\n: " in section
    assert "\nWhat would change this verdict\n: " in section


@pytest.fixture(scope="module")
def found() -> tuple[Judged, ...]:
    return catalogue.judge(BASE)


def test_the_overview_names_every_claim_and_verdict(found: tuple[Judged, ...]) -> None:
    rows = str(figures.overview(found)).splitlines()[2:]
    for each, row in zip(found, rows, strict=True):
        assert f"](#claim-{each.claim.number})" in row
        assert figures.badge(each.finding.verdict) in row
    words = str(figures.tally(found))
    assert sum(map(int, re.findall(r"(\d+) (?:conf|not|ref)", words))) == len(found)


def test_a_finding_says_what_it_was_computed_from(found: tuple[Judged, ...]) -> None:
    text = str(figures.finding(found, 8))
    assert text.startswith('<span class="verdict verdict-in-part">confirmed in part</span> ')
    assert "**Computed from** what was measured at this build (a collapse" in text
    assert "recorded (5 [real kernels]" in text
    assert "cited" in str(figures.finding(found, 14))


def test_tables_of_evidence() -> None:
    assert "65,400" in str(figures.mapcount_table(BASE.mapcount))
    assert "all 65,530" in str(figures.mapcount_table(BASE.mapcount))
    assert "67%" in str(figures.coalesced_table(BASE.coalesced))
    assert "100%" in str(figures.shared_table(BASE.shared))
    assert "not observable" in str(figures.shared_table({"memfd": MISSING}))
    assert "1.80 to 2.20" in str(figures.streams_picture(BASE.streams))
    assert "touched" not in str(figures.claimed_shapes(BASE.bench))


# Live ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live() -> Gathered:
    return gather()


def test_every_claim_is_judged_on_this_host(live: Gathered) -> None:
    found = catalogue.judge(live)
    for claim in catalogue.CLAIMS:
        assert str(figures.finding(found, claim.number)).startswith('<span class="verdict')


def test_no_kernel_leaves_holes_between_buffers_below_a_pmd(live: Gathered) -> None:
    for measured in live.small.values():
        if isinstance(measured, Measurement) and X86:
            assert measured.layout.gap_kib == 0


def test_a_collapse_reaches_what_lies_in_one_vma(live: Gathered) -> None:
    forced, multiples = (live.coalesced[rule] for rule in (FORCED, MULTIPLES))
    if X86 and isinstance(forced, Coalesced) and isinstance(multiples, Coalesced):
        assert (forced.vmas, multiples.vmas) == (16, 1)
        assert multiples.after >= forced.after
        assert forced.after <= 2 / 3 + 0.01


def test_mappings_that_merge_are_never_too_many(live: Gathered) -> None:
    if isinstance(live.mapcount, MapCount):
        assert live.mapcount.multiples is None
        assert live.mapcount.forced is not None
        assert live.mapcount.forced < live.mapcount.limit
    few = mapcount.map_until_refused(2000)
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    assert limited or few == MapCount(
        page_sizes().pmd // 1024 + page_sizes().base // 1024, 2000, None, None
    )


def test_a_limit_that_cannot_be_reached_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "more than is tried" in str(mapcount.map_until_refused(10**7))
    monkeypatch.setattr(mapcount, "host_facts", lambda: SimpleNamespace(max_map_count=None))
    assert "does not tell" in str(mapcount.map_until_refused())
    monkeypatch.setattr(mapcount, "_in_a_process", lambda _: 10)
    assert "another limit" in str(mapcount.map_until_refused(65530))


def test_what_would_take_too_much_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streams, coalesce):
        monkeypatch.setattr(module, "too_much", lambda _: MISSING)
    assert streams.measure_streams() is MISSING
    assert coalesce.coalesce(FORCED) is MISSING


def test_streams_give_two_ratios_with_intervals() -> None:
    found = streams.measure_streams(streams=4, rounds=3)
    assert isinstance(found, Streams)
    for ratio in dataclasses.astuple(found):
        value, low, high = ratio
        assert 0 < low <= value <= high
