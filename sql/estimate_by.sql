-- Number of samples before balancing in each group, estimated from the kept samples.
-- Like `estimate`, but for each value of a column, such as source, language, or format.
-- theme: Entries and balancing
-- param: by = source [column of measured]  column that defines the groups
-- column: group           the group: a value of the column `by`
-- column: kept            number of samples that were kept
-- column: estimate        sum(1/probability) over the kept samples
-- column: standard_error  sqrt(sum((1 - probability) / probability^2)) over the kept samples
-- column: low             estimate − 1.96 × standard_error
-- column: high            estimate + 1.96 × standard_error
-- column: survivors       true number of samples when balancing began
-- column: effective       Kish's effective sample size of the kept samples with weights 1/probability
WITH seen AS (
    SELECT struct_extract("measured row", $by)::VARCHAR AS "group", d.kept, d.probability
    FROM measured AS "measured row" JOIN decisions d USING (unit, row)
    WHERE d.kept OR d.rule IN ('balance', 'sample', 'other_text')
)
SELECT
    "group",
    count(*) FILTER (kept) AS kept,
    CASE WHEN bool_or(kept AND probability IS NULL) THEN NULL
        ELSE coalesce(sum(1 / probability) FILTER (kept), 0) END AS estimate,
    CASE WHEN estimate IS NOT NULL
        THEN coalesce(sqrt(sum((1 - probability) / probability ** 2) FILTER (kept)), 0) END AS standard_error,
    estimate - 1.96 * standard_error AS low,
    estimate + 1.96 * standard_error AS high,
    count(*) AS survivors,
    estimate ** 2 / nullif(sum(1 / probability ** 2) FILTER (kept), 0) AS effective
FROM seen
GROUP BY "group"
ORDER BY survivors DESC, "group";
