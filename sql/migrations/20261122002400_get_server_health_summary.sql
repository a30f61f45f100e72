-- How the servers are. Runs with the rights of the caller: a tenant sees its own, the admin plane all.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION get_server_health_summary() RETURNS TABLE (
    total_servers bigint, enabled_servers bigint, healthy_servers bigint, degraded_servers bigint,
    unhealthy_servers bigint, maintenance_servers bigint, unknown_servers bigint,
    avg_response_time double precision, health_percent double precision
)
LANGUAGE sql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
    SELECT count(*),
           count(*) FILTER (WHERE is_enabled),
           count(*) FILTER (WHERE health_status = 'HEALTHY'),
           count(*) FILTER (WHERE health_status = 'DEGRADED'),
           count(*) FILTER (WHERE health_status = 'UNHEALTHY'),
           count(*) FILTER (WHERE health_status = 'MAINTENANCE'),
           count(*) FILTER (WHERE health_status = 'UNKNOWN'),
           avg(s.avg_response_time),
           100.0 * count(*) FILTER (WHERE health_status = 'HEALTHY') / nullif(count(*), 0)
    FROM mcp_servers AS s
$$;
COMMENT ON FUNCTION get_server_health_summary() IS
    'Number of servers per state, their mean response time (ms), and the percentage that is healthy (null without any).';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION get_server_health_summary();

RESET ROLE;
