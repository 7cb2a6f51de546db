"""The kinds of deduplication passes: to add one, add a file to this folder, and a line here."""

from curate.decide.dedup.passes.dedup_pass import KeyPass
from curate.decide.dedup.passes.embedding import EMBEDDING
from curate.decide.dedup.passes.phash import PHASH_DISTANCE, PHASH_EQUALITY

KEYS = (KeyPass("uid"), KeyPass("sha256", needs_images=True), PHASH_EQUALITY)
NEARNESS = (PHASH_DISTANCE, EMBEDDING)
