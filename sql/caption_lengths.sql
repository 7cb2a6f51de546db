-- Histogram of the number of words per caption, in the pool and in the kept set.
-- theme: Captions
-- param: step = 5 [positive]  width of a bucket in words
-- column: words_from   lowest number of words in the bucket
-- column: words_below  upper end of the bucket, excluded
-- column: pool         number of samples in the pool
-- column: kept         number of samples that were kept
-- column: rate         kept / pool
-- column: example      caption from the bucket, of the sample with the smallest uid
SELECT
    (words // $step) * $step AS words_from,
    words_from + $step AS words_below,
    count(*) AS pool,
    count(*) FILTER (kept) AS kept,
    count(*) FILTER (kept) / count(*) AS rate,
    arg_min(caption, uid) AS example
FROM verdicts
WHERE words IS NOT NULL
GROUP BY words_from
ORDER BY words_from;
