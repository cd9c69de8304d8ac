"""How two arms of a timing compare: the ratio of their medians, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ratio of two medians.

    Parameters
    ----------
    value
        Median of the first sample over median of the second.
    low, high
        Bootstrap 95 % interval of that ratio.
    """

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        """Whether the interval, as it is printed, excludes 1; only then may one be claimed."""
        return not round(self.low, 2) <= 1 <= round(self.high, 2)

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def _ratio_of_medians(
    first: NDArray[np.float64], second: NDArray[np.float64], axis: int = -1
) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.median(first, axis=axis) / np.median(second, axis=axis)
    return ratio


def ratio(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> Ratio:
    """Compare two samples of one quantity, taken in alternation.

    Parameters
    ----------
    first, second
        At least two values each, same unit.
    seed
        Of the resampling, so that the same samples give the same interval.
    """
    found = stats.bootstrap(
        (np.asarray(first), np.asarray(second)),
        _ratio_of_medians,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    value = float(_ratio_of_medians(np.asarray(first), np.asarray(second)))
    return Ratio(value, float(found.low), float(found.high))
