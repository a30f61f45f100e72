-- Refreshes what is due according to the table materialized_views. One failing view does not keep the others from
-- being refreshed.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION refresh_materialized_views(at timestamptz DEFAULT now())
RETURNS TABLE (view_name text, duration_ms double precision, error text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
DECLARE
    due record;
    began timestamptz;
BEGIN
    -- One refresher at a time; a second one has nothing to do.
    IF NOT pg_try_advisory_xact_lock(hashtext('refresh_materialized_views')) THEN
        RETURN;
    END IF;
    FOR due IN
        SELECT m.view_name AS name, CASE WHEN m.is_concurrent THEN 'CONCURRENTLY' ELSE '' END AS how
        FROM materialized_views AS m
        WHERE m.is_enabled AND (
            m.refresh_strategy = 'always'
            OR m.refresh_strategy = 'interval'
               AND (m.last_refreshed_at IS NULL OR m.last_refreshed_at + m.refresh_interval <= at))
        ORDER BY m.last_refreshed_at NULLS FIRST, m.view_name
    LOOP
        began := clock_timestamp();
        view_name := due.name;
        BEGIN
            EXECUTE format('REFRESH MATERIALIZED VIEW %s %I', due.how, due.name);
            error := NULL;
        EXCEPTION WHEN OTHERS THEN
            error := SQLERRM;
        END;
        duration_ms := 1000 * extract(epoch FROM clock_timestamp() - began);
        UPDATE materialized_views AS m
        SET last_refreshed_at = CASE WHEN refresh_materialized_views.error IS NULL THEN at ELSE m.last_refreshed_at END,
            last_duration_ms = refresh_materialized_views.duration_ms, last_error = refresh_materialized_views.error
        WHERE m.view_name = due.name;
        RETURN NEXT;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION refresh_materialized_views(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION refresh_materialized_views(timestamptz) TO mcp_manager_app, mcp_manager_admin;
COMMENT ON FUNCTION refresh_materialized_views(timestamptz) IS
    'Refreshes the views that are due; returns each with its duration (ms) and error (null when it went well).';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION refresh_materialized_views(timestamptz);

RESET ROLE;
