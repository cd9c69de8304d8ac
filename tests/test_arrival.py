"""What memory is backed by, by the way it was asked for: exact counts on this host."""

from __future__ import annotations

import pytest

from hugeprobe import areas, arrival, check, reach
from hugeprobe.areas import Resident
from hugeprobe.arrival import WAYS, Arrival, Way, arrive
from hugeprobe.errors import NotObservable
from hugeprobe.figures import alignment as alignment_figures
from hugeprobe.figures import arrival as arrival_figures
from hugeprobe.figures import check as check_figures
from hugeprobe.host import effective_sizes, host_facts
from hugeprobe.linux import Advice
from hugeprobe.sizes import KIB, MIB, page_sizes

SIZES = page_sizes()
FACTS = host_facts()
ONLY_PMD = (SIZES.pmd // KIB,)


def arrived(way: Way) -> tuple[Arrival, Resident]:
    result = arrive(way)
    if isinstance(result, NotObservable):
        pytest.skip(str(result))
    if isinstance(result.resident, NotObservable):
        pytest.skip(str(result.resident))
    return result, result.resident


def by_name(name: str) -> Way:
    return next(way for way in WAYS if way.name == name)


@pytest.mark.parametrize(("name", "advised"), [("map, touch", False), ("map, advise, touch", True)])
def test_a_fault_gives_what_the_settings_permit(name: str, advised: bool) -> None:
    result, resident = arrived(by_name(name))
    sizes = effective_sizes(FACTS, advised=advised)
    pages = resident.anon_kib * KIB // SIZES.base
    if sizes == ONLY_PMD:
        assert result.minor_faults == resident.anon_kib // ONLY_PMD[0]
        assert resident.coverage == 1
    elif not sizes:
        assert (result.minor_faults, resident.huge_kib) == (pages, 0)
    else:
        assert result.minor_faults < pages


def test_forbidden_memory_stays_on_base_pages() -> None:
    result, resident = arrived(by_name("map, forbid, touch"))
    assert resident.huge_kib == 0
    assert result.minor_faults == resident.anon_kib * KIB // SIZES.base


def test_a_collapse_needs_no_mode() -> None:
    _, resident = arrived(by_name("map, touch, collapse"))
    assert resident.coverage == 1


def test_advice_after_the_touch_comes_too_late() -> None:
    if effective_sizes(FACTS, advised=False):
        pytest.skip("this host gives larger pages without advice")
    result, resident = arrived(by_name("map, touch, advise"))
    assert result.minor_faults == resident.anon_kib * KIB // SIZES.base
    assert resident.huge_kib == 0


def test_refused_advice_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(arrival, "advise", refuse)
    refused = "Not observable here, because the kernel refused MADV_HUGEPAGE (Invalid argument)."
    assert str(arrive(Way("advised", before=Advice.HUGEPAGE))) == refused
    late = arrive(Way("advised late", after=Advice.HUGEPAGE))
    assert isinstance(late, Arrival)
    assert str(late.resident) == refused
    table = str(arrival_figures.arrivals_table([late]))
    assert "Not observable here" in table


def test_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "usable_memory_kib", lambda: 100)
    shown = [
        arrival_figures.arrivals_picture([arrive(way) for way in WAYS]),
        arrival_figures.arrivals_table([arrive(way) for way in WAYS]),
        arrival_figures.reach_chart(reach.measure_reach()),
        arrival_figures.reach_sentence(reach.measure_reach()),
        check_figures.verdict(check.what_one_gets()),
        check_figures.ways_picture(check.what_one_gets()),
        check_figures.ways_table(check.what_one_gets()),
        alignment_figures.small_here(),
    ]
    assert all("Not observable here, because" in str(each) for each in shown)


def test_what_one_gets_fits_the_settings() -> None:
    got = check.what_one_gets()
    assert not isinstance(got, NotObservable)
    for name, advised in ((check.PLAIN, False), (check.ADVISED, True)):
        sizes = effective_sizes(FACTS, advised=advised)
        assert got[name].is_huge == (ONLY_PMD[0] in sizes)
    assert got[check.OFF_BOUNDARY].resident.huge_kib <= got[check.ADVISED].resident.huge_kib


@pytest.mark.parametrize(
    ("plain", "advised", "words"),
    [
        (64, 64, "to every process"),
        (0, 64, "only where a program asks"),
        (0, 20, "but not enough"),
        (0, 0, "no huge pages at a fault"),
    ],
)
def test_the_verdict_follows_from_what_was_seen(plain: int, advised: int, words: str) -> None:
    got = {
        name: check.Got(name, Resident(64 * KIB, huge * KIB))
        for name, huge in ((check.PLAIN, plain), (check.ADVISED, advised))
    }
    assert words in check.verdict(got)


def test_reach_compares_real_huge_pages_or_nothing() -> None:
    found = reach.measure_reach([256, 4096])
    if ONLY_PMD[0] in effective_sizes(FACTS, advised=True):
        assert not isinstance(found, NotObservable)
        assert [each.working_set_kib for each in found] == [256, 4096]
        assert all(each.base_ns > 0 and each.huge_ns > 0 for each in found)
        assert all(each.ratio.low <= each.ratio.high for each in found)
    else:
        assert isinstance(found, NotObservable)


def test_an_area_is_aligned_and_given_back() -> None:
    with areas.aligned_area(4 * MIB, SIZES) as span:
        assert span.start % SIZES.pmd == 0
        assert areas.resident(span) == Resident(0, 0)
        areas.touch(span)
        assert areas.resident(span).anon_kib == 4 * KIB
    assert areas.resident(span) == Resident(0, 0)
