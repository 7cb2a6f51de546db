"""The relations: a new one is a file of this folder, and a line here."""

from curate.relate.clusters import ClustersRelation
from curate.relate.negclip import NegClip
from curate.relate.pool_vas import PoolVas
from curate.relate.relation import Relation

KINDS: tuple[Relation, ...] = (NegClip(), ClustersRelation(), PoolVas())
