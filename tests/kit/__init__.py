"""What tests share. `from tests import kit` gives small pools and recipes, runs of them, and what a run holds.

A test reads as a case: a pool, a recipe, which samples are kept, and why the others are dropped:

    def test_short_captions_are_dropped(tmp_path):
        result = kit.curate(tmp_path, [kit.sample("a", "a red dog"), kit.sample("b", "dog")], rules={"short": "words > 1"})
        assert result.by_key == {"a": "kept", "b": "short"}

Its modules have the rest: `forked` (commands in processes), `web`, `range_server`, `llm_server`, `s3` and `store_proxy` (servers),
`packages` (packages of foreign kinds), `captioned` (runs with captions), `written_runs` (run folders without a pipeline),
`clips` (CLIP checkpoints), `precomputed` (DataComp's embeddings), `wordnet`, `deadly`, `deadly_captions`, and
`deadly_downloads` (signals, a caption engine, and a resizer that end their process), `crawls`, `articles`, `url_lists`,
`user_pools`, `languages`, and `embedded` (pools of other formats, of texts in languages, and with embeddings), `datacomp` (its
pool), `metaclip` (its definitions), `wikis` (what metadata is built from), `commands` (commands in this process), `pages` (the
commands on pages), `kills` (SIGKILL, and copies of a run folder as kills leave it), `store_faults` and `store_requests` (runs in
a bucket), `noise` (a signal that is never the same twice), `crawl_runs`, `forgetting`, `whatif`, `waiting`, `memory`, `watched`.
"""

from tests.kit.pools import *  # noqa: F403
from tests.kit.runs import *  # noqa: F403
