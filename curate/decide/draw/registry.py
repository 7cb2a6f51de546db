"""The selections: a new one is a file of this folder, and a line here."""

from curate.decide.draw.balance import BalanceSelection
from curate.decide.draw.sample import SampleSelection
from curate.decide.draw.selection import Selection

KINDS: tuple[Selection, ...] = (BalanceSelection(), SampleSelection())
