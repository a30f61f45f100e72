-- Quantiles cannot be added up; sketches can. Each row of server_metrics has one of its durations, so that the quantiles
-- of any time over all instances can be told from the rows.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE server_metrics
    ADD COLUMN duration_bins integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN duration_counts bigint[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT server_metrics_durations_check CHECK (cardinality(duration_counts) = cardinality(duration_bins));

COMMENT ON COLUMN server_metrics.duration_bins IS 'Bins of the durations; duration_of_bin says what each stands for.';
COMMENT ON COLUMN server_metrics.duration_counts IS 'How many durations fell into each.';

DO $$
BEGIN
    PERFORM describe_partition('server_metrics', inhrelid::regclass)
    FROM pg_inherits WHERE inhparent = 'server_metrics'::regclass;
END
$$;

CREATE FUNCTION duration_of_bin(bin integer) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    -- Each bin is 1.01 / 0.99 times as wide as the one before; what stands for it is within 1 % of all in it.
    SELECT power(1.01::double precision / 0.99, bin) * 2 / (1 + 1.01::double precision / 0.99)
$$;
COMMENT ON FUNCTION duration_of_bin(integer) IS
    'What a bin of durations stands for, in milliseconds: within 1 % of every duration in it.';

CREATE FUNCTION get_server_traffic_summary(
    since timestamptz DEFAULT now() - interval '1 hour', until timestamptz DEFAULT now()
) RETURNS TABLE (
    server_id uuid, total_requests numeric, failed_requests numeric, error_percent double precision,
    p50_ms double precision, p95_ms double precision, p99_ms double precision, bytes_in numeric, bytes_out numeric
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    WITH windows AS (
        SELECT m.server_id, m.request_count, m.error_count, m.bytes_in, m.bytes_out, m.duration_bins, m.duration_counts
        FROM server_metrics AS m WHERE m.recorded_at > since AND m.recorded_at <= until
    ), bins AS (
        SELECT w.server_id, b.bin, sum(b.durations) AS durations
        FROM windows AS w, unnest(w.duration_bins, w.duration_counts) AS b (bin, durations) GROUP BY w.server_id, b.bin
    ), ranks AS (
        SELECT b.server_id, b.bin, sum(b.durations) OVER (PARTITION BY b.server_id ORDER BY b.bin) AS seen,
               sum(b.durations) OVER (PARTITION BY b.server_id) - 1 AS last
        FROM bins AS b
    ), quantiles AS (
        SELECT r.server_id, min(r.bin) FILTER (WHERE r.seen > 0.50 * r.last) AS p50,
               min(r.bin) FILTER (WHERE r.seen > 0.95 * r.last) AS p95,
               min(r.bin) FILTER (WHERE r.seen > 0.99 * r.last) AS p99
        FROM ranks AS r GROUP BY r.server_id
    )
    SELECT w.server_id, sum(w.request_count), sum(w.error_count),
           (100.0 * sum(w.error_count) / nullif(sum(w.request_count), 0))::double precision,
           duration_of_bin(min(q.p50)), duration_of_bin(min(q.p95)), duration_of_bin(min(q.p99)),
           sum(w.bytes_in), sum(w.bytes_out)
    FROM windows AS w LEFT JOIN quantiles AS q USING (server_id)
    GROUP BY w.server_id
$$;
COMMENT ON FUNCTION get_server_traffic_summary(timestamptz, timestamptz) IS
    'As get_request_performance_summary, from the minutes of server_metrics that ended after since and until until.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION get_server_traffic_summary(timestamptz, timestamptz);
DROP FUNCTION duration_of_bin(integer);
ALTER TABLE server_metrics
    DROP CONSTRAINT server_metrics_durations_check, DROP COLUMN duration_bins, DROP COLUMN duration_counts;

RESET ROLE;
