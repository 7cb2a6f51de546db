-- Sums over entries. "Before" means the rows left when balancing began, or the pool if the run does not balance.
SELECT count(*) AS entries, count(*) FILTER (pool > 0) AS in_pool, count(*) FILTER (kept > 0) AS in_kept,
    count(*) FILTER (pool > 0 AND kept = 0) AS lost, count(*) FILTER (probability < 1) AS head,
    coalesce(sum(before), 0)::BIGINT AS matches, coalesce(sum(kept), 0)::BIGINT AS matches_kept,
    coalesce(sum(before) FILTER (probability = 1), 0)::BIGINT AS tail,
    coalesce(sum(kept) FILTER (probability = 1), 0)::BIGINT AS tail_kept
FROM (SELECT *, if($balanced, survivors, pool) AS before FROM entries)
