"""The balancing schemes: a new one is a file of this folder, and a line here."""

from curate.decide.draw.schemes.metaclip import Metaclip
from curate.decide.draw.schemes.scheme import Scheme

KINDS: tuple[Scheme, ...] = (Metaclip(),)
