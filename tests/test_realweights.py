from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hugeprobe import arms, inference, realweights
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.workloads import bert

RUNTIMES = [runtime.name for runtime in inference.RUNTIMES]
ARMS = [arm.name for arm in realweights.ARMS]
SETTINGS = [*itertools.product(RUNTIMES, ARMS)]


@pytest.fixture(scope="module")
def record() -> realweights.WeightsRecord:
    recorded = realweights.recorded()
    assert not isinstance(recorded, NotObservable)
    return recorded


@pytest.mark.parametrize(("runtime", "arm"), SETTINGS)
def test_weights_do_not_change_what_was_counted(
    record: realweights.WeightsRecord, runtime: str, arm: str
) -> None:
    """The same graph with other weights differs by what runs of one model differ by."""
    for stage in ("load", "first"):
        real, redrawn = (
            record.faults(variant, runtime, arm, stage) for variant in ("real", "redrawn")
        )
        assert real > 10_000
        assert redrawn == pytest.approx(real, rel=0.01)
    assert record.anonymous_kib("redrawn", runtime, arm) == pytest.approx(
        record.anonymous_kib("real", runtime, arm), rel=0.01
    )


@pytest.mark.parametrize(("runtime", "arm"), SETTINGS)
def test_the_graph_built_here_comes_near(
    record: realweights.WeightsRecord, runtime: str, arm: str
) -> None:
    for stage in ("load", "first"):
        real, built = (record.faults(variant, runtime, arm, stage) for variant in ("real", "built"))
        assert built == pytest.approx(real, rel=0.12)
    assert record.anonymous_kib("built", runtime, arm) == pytest.approx(
        record.anonymous_kib("real", runtime, arm), rel=0.06
    )


def test_record_says_where_it_comes_from(record: realweights.WeightsRecord) -> None:
    assert record.command == realweights.COMMAND
    assert record.shapes == realweights.SHAPES
    assert {name for name, _ in record.versions} == {*RUNTIMES, realweights.PACKAGE}
    assert len(record.counts) == 3 * len(RUNTIMES) * len(ARMS)
    assert {len(figures) for each in record.counts for figures in each.faults} == {3}


def test_redrawing_changes_values_only(tmp_path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx", reason="The package onnx is not installed.")
    model = bert.TINY.model_path(tmp_path)
    assert isinstance(model, Path)
    realweights.redraw(model, tmp_path / "redrawn.onnx", seed=1)
    old, new = onnx.load(model).graph, onnx.load(tmp_path / "redrawn.onnx").graph
    assert old.node == new.node
    for before, after in zip(old.initializer, new.initializer, strict=True):
        one, other = onnx.numpy_helper.to_array(before), onnx.numpy_helper.to_array(after)
        assert (before.name, one.shape, one.dtype) == (after.name, other.shape, other.dtype)
        constant = before.name.startswith("constant")
        assert np.array_equal(one, other) == constant


def test_measuring_counts_every_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realweights, "CONFIG", bert.TINY.config)
    monkeypatch.setattr(realweights, "SHAPES", ((1, 8), (2, 8), (1, 8)))
    monkeypatch.setattr(realweights, "ARMS", (arms.DEFAULT,))
    monkeypatch.setattr(realweights, "PACKAGE", "numpy")
    monkeypatch.setattr(realweights, "_RUNS", 1)
    monkeypatch.setattr(inference, "RUNTIMES", (inference.ONNXRUNTIME,))
    model = bert.TINY.model_path(tmp_path)
    record = model if isinstance(model, NotObservable) else realweights.measure(model, tmp_path)
    if isinstance(record, NotObservable):
        pytest.skip(str(record))
    for variant in ("real", "redrawn", "built"):
        assert record.faults(variant, "onnxruntime", "default", "load") > 0
        assert record.anonymous_kib(variant, "onnxruntime", "default") > 0


def test_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realweights, "PACKAGE", "no-such-package-of-that-name")
    with pytest.raises(ProbeError, match="carries the real model, is not installed"):
        realweights.main()
