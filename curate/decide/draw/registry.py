"""The selections: a new one is a file of this folder, and a line here."""

from curate.decide.draw.balance_values import Balances
from curate.decide.draw.sample import SampleSelection
from curate.decide.draw.selection import Selection

KINDS: tuple[Selection, ...] = (Balances(), SampleSelection())
