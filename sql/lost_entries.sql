-- Entries of the pool that the kept set lost, and the rule that dropped most samples.
-- Samples that could not be read match nothing, so their entries are not listed. For two stages, use `curate diff FIRST
-- SECOND --by entry`.
-- theme: Entries and balancing
-- param: min_pool = 1  minimum number of matching rows in the pool
-- param: limit = 20    maximum number of entries, most frequent first
-- column: entry      the entry
-- column: pool       pool rows that match it
-- column: survivors  matching rows left when balancing began
-- column: rule       rule that dropped most of them
-- column: rule_rows  rows that it dropped
-- column: example    caption of the sample with the smallest uid
WITH lost AS (
    SELECT entry_id, entry, pool, survivors
    FROM entries
    WHERE pool >= greatest($min_pool, 1) AND kept = 0
    ORDER BY pool DESC, entry
    LIMIT $limit
), hits AS MATERIALIZED (
    SELECT entry_id, d.rule, d.uid, d.unit, d.row
    FROM matched m SEMI JOIN lost USING (entry_id) JOIN decisions d USING (unit, row)
), by_rule AS (
    SELECT entry_id, rule, count(*) AS rows, min((uid, unit, row)) AS first FROM hits GROUP BY ALL
), most AS (
    SELECT entry_id, arg_max(rule, (rows, rule)) AS rule, max(rows) AS rule_rows, min(first) AS first
    FROM by_rule
    GROUP BY entry_id
)
SELECT l.entry, l.pool, l.survivors, m.rule, m.rule_rows, s.caption AS example
FROM lost l
LEFT JOIN most m USING (entry_id)
LEFT JOIN samples s ON s.unit = m.first[2] AND s.row = m.first[3]
ORDER BY l.pool DESC, l.entry;
