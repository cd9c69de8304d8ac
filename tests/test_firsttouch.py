"""First writes: faults are exact, times are there, and too little memory is a sentence."""

from __future__ import annotations

import pytest

from hugeprobe import firsttouch
from hugeprobe.errors import NotObservable
from hugeprobe.sizes import MIB, page_sizes

SIZES = page_sizes()


def test_faults_are_one_a_page() -> None:
    found = firsttouch.measure(length=4 * SIZES.pmd, stretches=5)
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    assert found.huge.faults == 4
    assert found.base.faults >= 4 * SIZES.pmd // SIZES.base
    for kind in (found.base, found.huge):
        assert len(kind.held) == len(kind.recycled) == len(kind.again) == 5
        assert min(kind.held + kind.recycled + kind.again) > 0
    assert found.recycled.low <= found.recycled.value <= found.recycled.high


def test_little_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firsttouch, "usable_memory_kib", lambda: 64 * 1024)
    assert "five stretches" in str(firsttouch.measure(length=32 * MIB))


def test_backing_leaves_nothing_mapped() -> None:
    firsttouch.back(0)
    firsttouch.back(4 * SIZES.pmd // 1024)
