-- What models did for synthetic captions.
SELECT kind, model, requests AS captions, sent AS "requested in this run", failed AS "no answer", passed, tokens_in AS "tokens in",
    tokens_out AS "tokens out", seconds AS engine, round((tokens_in + tokens_out) / nullif(seconds, 0))::BIGINT AS "tokens/s",
    cost::DECIMAL(18, 2) AS cost
FROM caption_work
ORDER BY ALL
LIMIT 40
