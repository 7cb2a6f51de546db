-- Entries in the pool but not in the kept set, and the rule that dropped most of their rows.
-- Samples that could not be read match no entry, so the query does not list their entries. To compare the two stages of
-- a two-stage curation, use `curate diff FIRST SECOND --by entry`.
-- theme: Entries and balancing
-- param: min_pool = 1  leave out entries that match fewer pool rows than this
-- param: limit = 20    maximum number of entries, most frequent first
-- column: entry      the metadata entry
-- column: pool       number of pool rows that match the entry
-- column: survivors  number of matching rows left when balancing began
-- column: rule       the step that dropped most of these rows
-- column: rule_rows  number of matching rows that this step dropped
-- column: example    caption of the matching sample with the smallest uid
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
