"""Tensors of changing shapes in new arrays and in a pool: what is counted, and what is shown."""

from __future__ import annotations

import math

import pytest

from hugeprobe import filling
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.figures import tensors as figures
from hugeprobe.filling import Filling
from hugeprobe.host import effective_sizes, host_facts
from hugeprobe.sizes import KIB, page_sizes

PMD = page_sizes().pmd
AT_FAULT = effective_sizes(host_facts(), advised=True)


def test_a_pool_faults_for_growth_only() -> None:
    found = filling.filled("pool")
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    assert [each.shape for each in found] == list(filling.SHAPES)
    assert [each.kib for each in found] == [math.prod(shape) * 4 // KIB for shape in filling.SHAPES]
    seen = 0
    for each in found:
        assert each.minor_faults > 0 if each.kib > seen else each.minor_faults == 0
        seen = max(seen, each.kib)
        assert (each.kib + each.overhead_kib) * KIB % PMD == 0 or each.kib < seen
        assert each.huge_kib * KIB % PMD == 0
        assert AT_FAULT or each.huge_kib == 0


def test_new_arrays_are_filled_in_the_same_shapes() -> None:
    found = filling.filled("new", [(4, 96, 1024), (1, 1)])
    if isinstance(found, NotObservable):
        pytest.skip(str(found))
    assert [(each.shape, each.kib) for each in found] == [((4, 96, 1024), 1536), ((1, 1), 0)]
    assert found[0].minor_faults > 0
    assert {each.overhead_kib for each in found} == {0}


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(ProbeError, match=r"failed with status 1: .*negative"):
        filling.filled("new", [(-1, 4)])


NEW = [Filling((8, 64), 1536, 384, 0, 0), Filling((8, 128), 3072, 1768, 0, 0)]
POOL = [Filling((8, 64), 1536, 1, 2048, 512), Filling((8, 128), 3072, 1, 4096, 1024)]


def test_the_table_holds_what_was_counted() -> None:
    rows = str(figures.fillings_table(NEW, POOL)).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    assert cells == [
        ["8 x 64", "1.5", "384", "0.0", "1", "2.0", "0.5"],
        ["8 x 128", "3.0", "1,768", "0.0", "1", "4.0", "1.0"],
    ]
    text = str(figures.fillings_sentence(NEW, POOL))
    assert "2 tensors one after another cost 2,152 minor faults in new arrays and 2 in" in text
    assert "1 MiB" in text


def test_fillings_that_could_not_take_place_are_a_sentence() -> None:
    missing = NotObservable("there is no memory")
    for new, pool in ((missing, POOL), (NEW, missing), (missing, missing)):
        assert figures.fillings_table(new, pool) is missing
        assert str(figures.fillings_sentence(new, pool)) == str(missing)
