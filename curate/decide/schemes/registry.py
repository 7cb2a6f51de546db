"""The balancing schemes: a new one is a file of this folder, and a line here."""

from curate.decide.schemes.metaclip import Metaclip
from curate.decide.schemes.scheme import Scheme

KINDS: tuple[Scheme, ...] = (Metaclip(),)
