"""One comparison of six methods on GLUE: trained alike, exported, validated, scored and timed."""
