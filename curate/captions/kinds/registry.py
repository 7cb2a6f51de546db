"""The caption kinds, in the order in which they are written: a fused text is made from a recaption."""

from curate.captions.kinds.fuse import Fuse
from curate.captions.kinds.kind import CaptionKind
from curate.captions.kinds.recaption import Recaption
from curate.captions.kinds.rewrite import Rewrite
from curate.captions.kinds.translate import Translate

KINDS: tuple[type[CaptionKind], ...] = (Recaption, Fuse, Rewrite, Translate)
