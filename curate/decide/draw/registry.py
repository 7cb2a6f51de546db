"""The selections, and the forms of `sample`: to add one, add a file to this folder, and a line here."""

from curate.decide.draw.balance import BalanceSelection
from curate.decide.draw.quotas import Quotas, QuotasSample
from curate.decide.draw.sample import Mixture, MixtureSample, SampleSelection
from curate.decide.draw.selection import SampleForm, Selection
from curate.decide.draw.soft_cap import SoftCap, SoftCapSample

KINDS: tuple[Selection, ...] = (BalanceSelection(), SampleSelection())
FORMS = (
    SampleForm("mixture", Mixture, MixtureSample()),
    SampleForm("quotas", Quotas, QuotasSample()),
    SampleForm("soft_cap", SoftCap, SoftCapSample()),
)
