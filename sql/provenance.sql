-- How this run was made: versions, models, metadata, start time, and duration.
-- theme: Overview
-- column: fact   name of the fact: a key in run.json, such as `packages.duckdb`
-- column: value  value of the fact, as text; times are in UTC
WITH RECURSIVE facts AS (
    SELECT key AS fact, CASE WHEN json_valid(value) THEN value::JSON ELSE to_json(value) END AS value
    FROM run
    WHERE key IN ('curate', 'name', 'seed', 't', 'started', 'finished', 'seconds', 'python', 'packages', 'models', 'metadata')
    UNION ALL
    SELECT fact || '.' || k.key, k.value
    FROM facts, json_each(facts.value) k
    WHERE json_type(facts.value) = 'OBJECT'
)
SELECT
    fact,
    CASE
        WHEN fact IN ('started', 'finished') THEN strftime(make_timestamp((value::DOUBLE * 1e6)::BIGINT), '%Y-%m-%d %H:%M:%S')
        ELSE value ->> '$'
    END AS value
FROM facts
WHERE json_type(value) <> 'OBJECT'
ORDER BY fact;
