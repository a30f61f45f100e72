-- Which indexes earn their keep.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE VIEW index_usage_summary WITH (security_invoker = true) AS
SELECT t.relname::text AS table_name, i.relname::text AS index_name,
       coalesce(sum(s.idx_scan), 0)::bigint AS scans,
       coalesce(sum(s.idx_tup_read), 0)::bigint AS rows_read,
       sum(pg_relation_size(tree.relid))::bigint AS index_bytes,
       x.indisunique AS is_unique
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_class AS t ON t.oid = x.indrelid
CROSS JOIN LATERAL (
    SELECT relid FROM pg_partition_tree(i.oid) WHERE isleaf
    UNION SELECT i.oid WHERE i.relkind = 'i'
) AS tree
LEFT JOIN pg_stat_user_indexes AS s ON s.indexrelid = tree.relid
WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT i.relispartition
GROUP BY t.relname, i.relname, x.indisunique
ORDER BY scans, index_bytes DESC;

COMMENT ON VIEW index_usage_summary IS
    'Use of each index since the statistics were reset, summed over partitions; unused ones first.';
COMMENT ON COLUMN index_usage_summary.table_name IS 'Name of the table.';
COMMENT ON COLUMN index_usage_summary.index_name IS 'Name of the index.';
COMMENT ON COLUMN index_usage_summary.scans IS 'How often it was scanned.';
COMMENT ON COLUMN index_usage_summary.rows_read IS 'Index entries that the scans returned.';
COMMENT ON COLUMN index_usage_summary.index_bytes IS 'Its size.';
COMMENT ON COLUMN index_usage_summary.is_unique IS
    'Whether it also enforces uniqueness, so that it is needed even without scans.';
GRANT SELECT ON index_usage_summary TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP VIEW index_usage_summary;

RESET ROLE;
