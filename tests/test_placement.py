"""The pure model against cases worked out from the kernel's source, and against its own laws."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe.errors import BadRequestError
from hugeprobe.placement import Layout, Rule, Touch, model, place
from hugeprobe.sizes import KIB, MIB, PageSizes

PMD = 2 * MIB
SIZES = PageSizes()

lengths_st = st.lists(
    st.integers(1, 2500).map(lambda pages: pages * 4 * KIB), min_size=1, max_size=8
)
offsets_st = st.integers(0, 511).map(lambda pages: pages * 4 * KIB)


def sixteen(kib: int, rule: Rule, touch: Touch) -> Layout:
    return model([kib * KIB] * 16, rule, touch)


@pytest.mark.parametrize(
    ("kib", "rule", "touch", "percent", "faults"),
    [
        (1536, Rule.MULTIPLES, Touch.EACH, 0, 16 * 384),
        (1536, Rule.MULTIPLES, Touch.AFTER, 100, 12),
        (1536, Rule.FORCED, Touch.EACH, 0, 16 * 384),
        (2052, Rule.MULTIPLES, Touch.EACH, 6, 7697),
        (2052, Rule.MULTIPLES, Touch.AFTER, 99, 32),
        (2052, Rule.FORCED, Touch.EACH, 99, 32),
        (3072, Rule.FORCED, Touch.AFTER, 66, 16 * (1 + 256)),
        (3072, Rule.MULTIPLES, Touch.AFTER, 100, 24),
        (3072, Rule.MULTIPLES, Touch.EACH, 66, 8 * (1 + 256) + 8 * (1 + 256)),
        (4096, Rule.PACKED, Touch.EACH, 100, 32),
    ],
)
def test_sixteen_mappings(kib: int, rule: Rule, touch: Touch, percent: int, faults: int) -> None:
    layout = sixteen(kib, rule, touch)
    assert int(layout.coverage * 100) == percent
    assert layout.minor_faults == faults
    assert layout.anon_kib == 16 * kib


def test_forced_leaves_a_hole_behind_every_odd_length() -> None:
    layout = sixteen(2052, Rule.FORCED, Touch.AFTER)
    assert (layout.vmas, layout.gap_kib) == (16, 15 * 2044)
    assert all(mapping.aligned for mapping in layout.mappings)


def test_whole_pmds_are_aligned_and_still_merge() -> None:
    layout = model([4 * MIB] * 4, Rule.MULTIPLES, Touch.EACH, top_offset=64 * KIB)
    assert (layout.vmas, layout.gap_kib, layout.huge_kib) == (1, 0, 16 * KIB)


def test_under_packed_whole_pmds_keep_the_offset_of_the_top() -> None:
    layout = model([4 * MIB] * 4, Rule.PACKED, Touch.EACH, top_offset=64 * KIB)
    assert not any(mapping.aligned for mapping in layout.mappings)
    assert layout.huge_kib == 4 * 2048  # the range that spans two mappings is touched too early


def test_a_small_mapping_fills_the_hole_that_a_large_one_left() -> None:
    odd, small = 2 * PMD + 4 * KIB, 512 * KIB
    first, second, third = place([odd, odd, small], Rule.FORCED, 8 * PMD, SIZES)
    assert first.start - second.end == PMD - 4 * KIB
    assert third.end == 8 * PMD  # the highest hole is the one above the first mapping


def test_a_hole_filled_between_touched_neighbours_does_not_make_one_vma_of_three() -> None:
    odd = 2 * PMD - 512 * KIB  # leaves holes of 512 KiB
    each = model([odd, odd, 512 * KIB, 512 * KIB], Rule.FORCED, Touch.EACH)
    after = model([odd, odd, 512 * KIB, 512 * KIB], Rule.FORCED, Touch.AFTER)
    assert (each.vmas, after.vmas) == (2, 1)


def test_smaller_pages_answer_faults_where_a_huge_page_does_not_fit() -> None:
    sizes = PageSizes(at_fault=(2 * MIB, 64 * KIB))
    layout = model([1536 * KIB] * 16, Rule.MULTIPLES, Touch.EACH, sizes=sizes)
    assert (layout.minor_faults, layout.huge_kib) == (16 * 24, 0)


def test_without_thp_every_page_is_a_fault() -> None:
    layout = model([3 * MIB] * 2, Rule.FORCED, Touch.AFTER, sizes=PageSizes(at_fault=()))
    assert (layout.minor_faults, layout.huge_kib, layout.vmas) == (1536, 0, 2)


def test_large_base_pages() -> None:
    sizes = PageSizes(base=64 * KIB, pmd=512 * MIB, at_fault=(512 * MIB,))
    layout = model([600 * MIB], Rule.FORCED, Touch.EACH, sizes=sizes)
    assert (layout.huge_kib, layout.minor_faults) == (512 * KIB, 1 + 88 * 16)


@given(lengths_st, st.sampled_from(Rule), st.sampled_from(Touch), offsets_st)
def test_what_is_touched_is_counted_once(
    lengths: list[int], rule: Rule, touch: Touch, top_offset: int
) -> None:
    layout = model(lengths, rule, touch, top_offset=top_offset)
    pages = sum(lengths) // (4 * KIB)
    huge = layout.huge_kib // 2048
    assert layout.anon_kib == sum(lengths) // KIB
    assert layout.minor_faults == pages - huge * 512 + huge
    assert layout.huge_offsets is not None
    assert len(layout.huge_offsets) == huge
    assert 1 <= layout.vmas <= len(lengths)


@given(lengths_st, st.sampled_from(Rule), offsets_st)
def test_mappings_never_overlap_and_are_aligned_where_the_rule_says(
    lengths: list[int], rule: Rule, top_offset: int
) -> None:
    top = (1 << 46) + top_offset
    spans = place(lengths, rule, top, SIZES)
    ordered = sorted(spans, key=lambda span: span.start)
    assert all(low.end <= high.start for low, high in itertools.pairwise(ordered))
    assert ordered[-1].end <= top
    for span, length in zip(spans, lengths, strict=True):
        assert span.length == length
        assert span.start % PMD == 0 or not rule.aligns(length, PMD)


@given(lengths_st, st.sampled_from(Rule), offsets_st)
def test_touching_late_never_yields_fewer_huge_pages(
    lengths: list[int], rule: Rule, top_offset: int
) -> None:
    each, after = (model(lengths, rule, touch, top_offset=top_offset) for touch in Touch)
    assert after.huge_kib >= each.huge_kib


@given(lengths_st, st.sampled_from(Touch), offsets_st)
def test_packed_leaves_no_holes(lengths: list[int], touch: Touch, top_offset: int) -> None:
    layout = model(lengths, Rule.PACKED, touch, top_offset=top_offset)
    assert (layout.gap_kib, layout.vmas) == (0, 1)


@pytest.mark.parametrize("lengths", [[], [0], [-4096, 4096]])
def test_lengths_must_be_positive(lengths: list[int]) -> None:
    with pytest.raises(BadRequestError, match="at least one"):
        model(lengths, Rule.PACKED, Touch.EACH)


@pytest.mark.parametrize("offset", [-4096, 100, 2 * MIB])
def test_the_top_lies_whole_pages_above_a_boundary(offset: int) -> None:
    with pytest.raises(BadRequestError, match="whole number"):
        model([PMD], Rule.PACKED, Touch.EACH, top_offset=offset)
