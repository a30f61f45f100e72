-- Changes that the data plane must know of at once, on the channel mcp_manager. The payload names the row and shows
-- nothing of it.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION notify_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    -- Columns that count or observe, given to the trigger: a change of these alone is no news.
    quiet text[] := coalesce(TG_ARGV, '{}');
    changed jsonb[];
    changed_row jsonb;
BEGIN
    changed := CASE TG_OP
        WHEN 'INSERT' THEN ARRAY[to_jsonb(NEW)]
        WHEN 'DELETE' THEN ARRAY[to_jsonb(OLD)]
        ELSE ARRAY[to_jsonb(OLD), to_jsonb(NEW)] -- both: the row may have gone from one tenant to another
    END;
    IF TG_OP = 'UPDATE' AND changed[1] - quiet = changed[2] - quiet THEN
        RETURN NULL;
    END IF;
    FOREACH changed_row IN ARRAY changed LOOP
        -- PostgreSQL itself drops a payload that was sent already in the same transaction.
        PERFORM pg_notify('mcp_manager', json_build_object(
            'table', TG_TABLE_NAME, 'op', lower(TG_OP),
            'tenant', CASE TG_TABLE_NAME WHEN 'tenants' THEN changed_row ->> 'id' ELSE changed_row ->> 'tenant_id' END,
            'id', changed_row ->> 'id')::text);
    END LOOP;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION notify_change() IS
    'Trigger: tells the channel mcp_manager which row changed. Arguments: columns that do not matter.';

CREATE FUNCTION notify_truncate() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM pg_notify('mcp_manager', json_build_object(
        'table', TG_TABLE_NAME, 'op', 'truncate', 'tenant', NULL, 'id', NULL)::text);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION notify_truncate() IS 'Trigger: tells the channel mcp_manager that a table was emptied.';

CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON tenants
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON mcp_servers
    FOR EACH ROW EXECUTE FUNCTION notify_change(
        'updated_at', 'capabilities', 'protocol_version', 'health_status', 'avg_response_time',
        'consecutive_failures', 'last_health_check_at', 'next_health_check_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON mcp_servers
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON routing_rules
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON routing_rules
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON enhanced_api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at', 'usage_count', 'last_used_at', 'last_used_ip');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON enhanced_api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at', 'usage_count', 'last_used_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON api_tokens
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at', 'usage_count', 'last_used_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON api_tokens
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON server_access_control
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON server_access_control
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON rate_limit_configs
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON rate_limit_configs
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON feature_flags
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON feature_flags
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON maintenance_windows
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON maintenance_windows
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON system_configs
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON system_configs
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION notify_truncate() CASCADE; -- with its triggers
DROP FUNCTION notify_change() CASCADE;

RESET ROLE;
