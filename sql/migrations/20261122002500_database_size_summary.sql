-- How big the tables are.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE VIEW database_size_summary WITH (security_invoker = true) AS
SELECT c.relname::text AS table_name,
       sum(greatest(leaf.reltuples, 0))::bigint AS row_estimate,
       sum(pg_table_size(tree.relid))::bigint AS table_bytes,
       sum(pg_indexes_size(tree.relid))::bigint AS index_bytes,
       sum(pg_total_relation_size(tree.relid))::bigint AS total_bytes,
       count(*) FILTER (WHERE leaf.relispartition) AS partitions
FROM pg_class AS c
CROSS JOIN LATERAL (
    SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf
    UNION SELECT c.oid WHERE c.relkind = 'r'
) AS tree
JOIN pg_class AS leaf ON leaf.oid = tree.relid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace
GROUP BY c.relname
ORDER BY total_bytes DESC;

COMMENT ON VIEW database_size_summary IS
    'Size of each table, its partitions included, biggest first.';
COMMENT ON COLUMN database_size_summary.table_name IS 'Name of the table.';
COMMENT ON COLUMN database_size_summary.row_estimate IS 'Rows, as the statistics have it.';
COMMENT ON COLUMN database_size_summary.table_bytes IS 'Bytes of the rows.';
COMMENT ON COLUMN database_size_summary.index_bytes IS 'Bytes of the indexes.';
COMMENT ON COLUMN database_size_summary.total_bytes IS 'Bytes of both.';
COMMENT ON COLUMN database_size_summary.partitions IS 'Number of partitions; 0 if not partitioned.';
GRANT SELECT ON database_size_summary TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP VIEW database_size_summary;

RESET ROLE;
