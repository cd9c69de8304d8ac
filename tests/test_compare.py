"""Ratios: the right way up, with intervals that hold what they should, and no claim without one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hugeprobe.compare import Ratio, ratio
from hugeprobe.figures.arrival import reach_sentence
from hugeprobe.reach import Reach

values = st.lists(st.floats(1.0, 100.0), min_size=3, max_size=12)


def test_twice_as_slow_is_two() -> None:
    noise = np.random.default_rng(1).normal(1, 0.01, 25)
    found = ratio(list(20 * noise), list(10 * noise[::-1]))
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.low < 2 < found.high
    assert found.differs


def test_the_same_sample_does_not_differ() -> None:
    sample = list(np.random.default_rng(2).normal(10, 2, 25))
    assert not ratio(sample, sample).differs


@given(values, values)
def test_the_interval_holds_the_ratio_and_repeats(first: list[float], second: list[float]) -> None:
    found = ratio(first, second)
    assert found.low <= found.value * (1 + 1e-9)
    assert found.high >= found.value * (1 - 1e-9)
    assert found == ratio(first, second)


@pytest.mark.parametrize(
    ("low", "high", "differs"),
    [(1.1, 1.3, True), (0.8, 0.9, True), (0.9, 1.1, False), (1.004, 1.2, False)],
)
def test_a_difference_needs_an_interval_without_one(low: float, high: float, differs: bool) -> None:
    assert Ratio((low + high) / 2, low, high).differs is differs


def test_no_sentence_claims_what_the_interval_does_not() -> None:
    unclear = reach_sentence([Reach(1024, 10, 9, Ratio(1.11, 0.9, 1.3))])
    clear = reach_sentence([Reach(1024, 12, 8, Ratio(1.5, 1.4, 1.6))])
    assert "no difference" in str(unclear)
    assert "took 1.50 (1.40 to 1.60) times as long" in str(clear)
