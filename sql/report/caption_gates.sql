-- Results of the quality filters for synthetic captions.
SELECT kind, style, gate AS result, texts AS captions, share AS "share of its style"
FROM {caption_gates}
ORDER BY kind, style, gate <> 'passed', texts DESC, gate
LIMIT 100
