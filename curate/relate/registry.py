"""The relations: to add one, add a file to this folder, and a line here."""

from curate.relate.clusters import ClustersRelation
from curate.relate.negclip import NegClip
from curate.relate.pool_vas import PoolVas
from curate.relate.relation import Relation

KINDS: tuple[Relation, ...] = (NegClip(), ClustersRelation(), PoolVas())
