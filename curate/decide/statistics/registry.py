"""The statistics: a new one is a file of this folder, and a line here."""

from curate.decide.statistics.minmax import MinMax
from curate.decide.statistics.quantile import Quantile
from curate.decide.statistics.statistic import Statistic
from curate.decide.statistics.zscore import ZScore

KINDS: tuple[Statistic, ...] = (ZScore(), MinMax(), Quantile())
