"""zscore(x): (x - mean) / standard deviation (population's); 0 where all are equal (scikit-learn's StandardScaler)."""

from collections.abc import Mapping

from curate.base.numeric.arrays import F64
from curate.decide.statistics.exact_sums import ExactSums
from curate.decide.statistics.statistic import Statistic, scaled


class ZScore(Statistic):
    """The distance from the mean, in standard deviations."""

    key = "zscore"

    def fit(self, values: F64) -> ExactSums:
        """Return exact sums of the values and of their squares."""
        return ExactSums.of(values)

    def parameters(self, summary: ExactSums) -> Mapping[str, float]:
        """Return mean and standard deviation."""
        if not summary.rows:
            return {"mean": 0.0, "standard_deviation": 0.0}
        return {"mean": summary.mean, "standard_deviation": summary.standard_deviation}

    def apply(self, values: F64, parameters: Mapping[str, float]) -> F64:
        """Return the z-score of each value."""
        return scaled(values, parameters["mean"], parameters["standard_deviation"])
