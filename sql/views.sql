-- Views over a run's tables, for every query. Views that exist already: `samples`, `scores`, `scored`, `measured`, `verdicts`, `embeddings`,
-- `matches`, `related`, `decisions`, `members`, `published`, `manifest`, `answers`, `captions`, `regions`, `retries`. Tables: `entries`, `failures`, `reasons`, `rules`, `run`, `funnel`, `drops`, `sources`, `drift`, `caption_work`, `steps`, `used`, `forgotten`.

-- `verdicts` has every sample, with its columns from samples, scores and decisions.

-- The curated set.
CREATE VIEW kept AS
SELECT * FROM verdicts WHERE kept;

-- All other samples: dropped by a rule, or unreadable (rule 'failed').
CREATE VIEW dropped AS
SELECT * FROM verdicts WHERE NOT kept;

-- Samples left when balancing began. The counts of entries are over these rows.
CREATE VIEW survivors AS
SELECT * FROM verdicts WHERE kept OR rule IN ('balance', 'sample', 'other_text');

-- The steps after deduplication. A representative of duplicates is kept, or one of these steps drops it.
CREATE VIEW later_rules AS
SELECT rule FROM funnel WHERE position > (SELECT position FROM funnel WHERE rule = 'duplicate');

-- The samples that represent duplicates, one row per uid. They are kept, or a later step drops them.
CREATE VIEW representatives AS
SELECT * FROM verdicts
WHERE (kept OR rule IN (FROM later_rules)) AND uid IN (SELECT duplicate_of FROM decisions WHERE rule = 'duplicate');

-- One row per sample and entry that it matches.
CREATE VIEW matched AS
SELECT unit, row, uid, unnest(entry_ids) AS entry_id FROM matches;
