-- The whole system on one page. Runs with the rights of the caller: a tenant sees its own part.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE VIEW performance_monitoring WITH (security_invoker = true) AS
SELECT component, total_count, healthy_count,
       100::double precision * healthy_count / nullif(total_count, 0) AS health_percent, value
FROM (
    SELECT 'servers' AS component, count(*) AS total_count,
           count(*) FILTER (WHERE health_status = 'HEALTHY') AS healthy_count, avg(avg_response_time) AS value
    FROM mcp_servers
    UNION ALL
    SELECT 'requests', count(*), count(*) FILTER (WHERE status_code < 500), avg(duration_ms)
    FROM request_logs WHERE ts >= now() - interval '1 hour'
    UNION ALL
    SELECT 'breakers', count(*), count(*) FILTER (WHERE state = 'closed'), NULL FROM circuit_breakers
    UNION ALL
    SELECT 'pools', count(*), count(*) FILTER (WHERE utilization < 0.9), avg(utilization) FROM connection_pools
    UNION ALL
    SELECT 'queues', count(*), count(*) FILTER (WHERE pending < max_pending OR pending = 0), max(oldest_wait_ms)
    FROM request_queues
    UNION ALL
    SELECT 'alerts', count(*), count(*) FILTER (WHERE state = 'ok'), NULL FROM performance_alerts WHERE is_enabled
) AS parts;

COMMENT ON VIEW performance_monitoring IS
    'One row per component: how many, how many of them are well, and one telling value.';
COMMENT ON COLUMN performance_monitoring.component IS
    'What is counted: servers, requests, breakers, pools, queues, alerts.';
COMMENT ON COLUMN performance_monitoring.total_count IS 'How many; requests are those of the last hour.';
COMMENT ON COLUMN performance_monitoring.healthy_count IS 'How many of them are well.';
COMMENT ON COLUMN performance_monitoring.health_percent IS 'The same in percent; null without any.';
COMMENT ON COLUMN performance_monitoring.value IS
    'Mean response time or duration (ms), utilisation, oldest wait (ms), or null.';
GRANT SELECT ON performance_monitoring TO mcp_manager_app, mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP VIEW performance_monitoring;

RESET ROLE;
