"""Real mappings against the model: every address, hole, VMA, KiB and fault."""

from __future__ import annotations

import errno
import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hugeprobe import areas, emulate, probe
from hugeprobe.errors import BadRequestError, NotObservable
from hugeprobe.figures.alignment import agreement
from hugeprobe.placement import Rule, Span, Touch, model, place
from hugeprobe.sizes import KIB, MIB, page_sizes
from hugeprobe.sweep import TELLING_KIB, Case, same, sweep

if TYPE_CHECKING:
    from hugeprobe.emulate import Measurement

SIZES = page_sizes()
MIXED = [[4 * MIB, 3 * MIB] * 4, [1536 * KIB, 5000 * KIB, 100 * KIB, 8 * MIB, 4 * KIB] * 3]


def measured(result: Measurement | NotObservable) -> Measurement:
    if isinstance(result, NotObservable):
        pytest.skip(str(result))
    return result


def first_difference(case: Case) -> str:
    names = ("mappings", "gap_kib", "vmas", "anon_kib", "huge_kib", "minor_faults")
    for name in names:
        ours, theirs = getattr(case.layout, name), getattr(case.model, name)
        if ours != theirs:
            where = f"{case.kib} KiB, {case.rule.value}, {case.touch.value}"
            return f"{where}: {name} is {ours} measured, {theirs} in the model"
    return ""


def test_the_rules_measured_are_the_rules_modelled() -> None:
    cases = sweep(TELLING_KIB, top_offset_kib=0)
    possible = [case for case in cases if case.is_measured]
    if not possible:
        pytest.skip(str(agreement(cases)))
    assert [text for case in possible if (text := first_difference(case))] == []


@pytest.mark.parametrize(
    ("lengths", "rule", "touch"), list(product(MIXED, Rule, Touch)), ids=lambda v: str(v)[:24]
)
def test_mixed_lengths(lengths: list[int], rule: Rule, touch: Touch) -> None:
    result = measured(emulate.emulate(lengths, rule, touch, top_offset=128 * KIB))
    if result.caveat:
        pytest.skip(result.caveat)
    assert same(result.layout, model(lengths, rule, touch, top_offset=128 * KIB, sizes=SIZES))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 1200).map(lambda pages: pages * SIZES.base), min_size=1, max_size=6),
    st.sampled_from(Rule),
    st.sampled_from(Touch),
    st.integers(0, SIZES.pmd // SIZES.base - 1).map(lambda pages: pages * SIZES.base),
)
def test_any_lengths_at_any_offset(
    lengths: list[int], rule: Rule, touch: Touch, top_offset: int
) -> None:
    result = measured(emulate.emulate(lengths, rule, touch, top_offset=top_offset))
    modelled = model(lengths, rule, touch, top_offset=top_offset, sizes=SIZES)
    assert (result.layout.mappings, result.layout.gap_kib) == (modelled.mappings, modelled.gap_kib)
    assert result.layout.anon_kib == modelled.anon_kib
    assert result.caveat or same(result.layout, modelled)


@pytest.mark.parametrize("touch", list(Touch))
@pytest.mark.parametrize("kib", [1536, 2048, 2052, 3072, 4632])
def test_the_running_kernel_places_as_its_rule_says(kib: int, touch: Touch) -> None:
    rule = probe.find_rule().rule
    if rule is None:
        pytest.skip("this kernel follows none of the known rules")
    result = measured(emulate.observe([kib * KIB] * 8, touch, top_offset=64 * KIB))
    modelled = model([kib * KIB] * 8, rule, touch, top_offset=64 * KIB, sizes=SIZES)
    assert result.layout.mappings == modelled.mappings
    assert result.caveat or same(result.layout, modelled)


def test_nothing_is_left_behind() -> None:
    def mapped_kib() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmSize:")[1].split()[0])

    for _ in range(2):  # the first run warms up what Python itself allocates
        before = mapped_kib()
        emulate.emulate([3 * MIB] * 64, Rule.FORCED, Touch.AFTER)
        emulate.observe([3 * MIB] * 64, Touch.AFTER)
    assert mapped_kib() - before < 3 * KIB


def test_a_layout_that_would_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "usable_memory_kib", lambda: 8 * KIB)
    for result in (
        emulate.emulate([3 * MIB] * 2, Rule.PACKED, Touch.EACH),
        emulate.observe([3 * MIB] * 2, Touch.EACH),
    ):
        assert isinstance(result, NotObservable)
        assert str(result) == (
            "Not observable here, because it would touch 6 MiB, and of the 8 MiB that this process "
            "may use an experiment takes at most half."
        )


def test_a_refused_mapping_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(emulate, "map_anonymous", refuse)
    for result in (
        emulate.emulate([MIB], Rule.PACKED, Touch.EACH),
        emulate.observe([MIB], Touch.EACH),
    ):
        assert str(result).endswith("the kernel refused the mappings (Cannot allocate memory).")


def test_more_than_the_address_space_is_a_sentence() -> None:
    with pytest.raises(BadRequestError, match="free address space"):
        emulate.emulate([1 << 50], Rule.PACKED, Touch.EACH)


def test_the_top_must_lie_whole_pages_above_a_boundary() -> None:
    with pytest.raises(BadRequestError):
        emulate.emulate([MIB], Rule.PACKED, Touch.EACH, top_offset=3)


def test_the_probe_is_certain_or_says_that_it_is_not() -> None:
    finding = probe.find_rule()
    assert finding == probe.find_rule()
    if finding.rule:
        assert all(finding.rule in each.fits for each in finding.evidence)
        assert f"`{finding.rule.value}`" in finding.sentence
    else:
        assert "none of the known rules" in finding.sentence


@pytest.mark.parametrize("rule", list(Rule))
def test_the_probe_tells_every_rule_from_the_others(
    rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = (1 << 46) + 5 * SIZES.base
    monkeypatch.setattr(
        probe, "_observe", lambda lengths, _, sizes: (top, place(lengths, rule, top, sizes))
    )
    assert probe.find_rule().rule is rule


def test_a_kernel_of_another_kind_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def ascending(lengths: tuple[int, ...], *_: object) -> tuple[int, list[Span]]:
        spans, start = [], 1 << 40
        for length in lengths:
            spans.append(Span(start, start + length))
            start += length
        return start, spans

    monkeypatch.setattr(probe, "_observe", ascending)
    finding = probe.find_rule()
    assert finding.rule is None
    assert "none of the known rules" in finding.sentence
