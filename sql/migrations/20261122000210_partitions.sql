-- Partitions by time: a day each for request_logs and audit_logs, a month for the others. Each table has a default
-- partition besides, so that no row is ever refused; its rows move when their partition is made.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION describe_partition(parent regclass, partition regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    col record;
BEGIN
    EXECUTE format('COMMENT ON TABLE %s IS %L', partition, 'Partition of ' || parent || ' by time.');
    FOR col IN
        SELECT attname, col_description(attrelid, attnum) AS words
        FROM pg_attribute WHERE attrelid = parent AND attnum > 0 AND NOT attisdropped
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', partition, col.attname, col.words);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION describe_partition(regclass, regclass) FROM PUBLIC;
COMMENT ON FUNCTION describe_partition(regclass, regclass) IS
    'Copies the comments of a partitioned table to a partition, which does not inherit them.';

CREATE FUNCTION add_partition(parent regclass, partition text, time_column text, since timestamptz, until timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    fallback text := quote_ident(parent || '_default');
    aside text := quote_ident(partition || '_aside');
BEGIN
    -- Rows that came too early lie in the default partition, where FORCE hides them from the owner as from anyone. They
    -- go back after the new partition is attached: attaching full ones would check foreign keys under the same FORCE.
    EXECUTE format('CREATE TABLE public.%s (LIKE %s)', aside, parent);
    EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', fallback);
    EXECUTE format(
        'WITH moved AS (DELETE FROM %s WHERE %I >= %L AND %I < %L RETURNING *) INSERT INTO %s SELECT * FROM moved',
        fallback, time_column, since, time_column, until, aside);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', fallback);
    EXECUTE format('CREATE TABLE public.%I PARTITION OF %s FOR VALUES FROM (%L) TO (%L)',
                   partition, parent, since, until);
    EXECUTE format('INSERT INTO %I SELECT * FROM %s', partition, aside);
    EXECUTE format('DROP TABLE %s', aside);
    PERFORM isolate_tenant_rows(partition::regclass);
    PERFORM describe_partition(parent, partition::regclass);
END
$$;
REVOKE ALL ON FUNCTION add_partition(regclass, text, text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION add_partition(regclass, text, text, timestamptz, timestamptz) IS
    'Makes one partition, and moves into it what lies in the default partition.';

CREATE FUNCTION create_partitions(since timestamptz DEFAULT now(), ahead interval DEFAULT '7 days') RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' SET lock_timeout = '5s' AS $$
DECLARE
    parent record;
    first timestamptz;
    partition text;
BEGIN
    IF ahead > interval '400 days' THEN
        RAISE EXCEPTION 'create_partitions: at most 400 days ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('create_partitions'));
    FOR parent IN
        SELECT c.oid::regclass AS name, a.attname AS time_column,
               CASE WHEN c.relname IN ('request_logs', 'audit_logs') THEN 'day' ELSE 'month' END AS width
        FROM pg_partitioned_table p
        JOIN pg_class c ON c.oid = p.partrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        WHERE c.relowner = 'mcp_manager_owner'::regrole AND c.relnamespace = 'public'::regnamespace
        ORDER BY c.relname
    LOOP
        first := date_trunc(parent.width, since);
        WHILE first < since + ahead LOOP
            partition := parent.name || to_char(first, CASE parent.width WHEN 'day' THEN '_YYYYMMDD' ELSE '_YYYYMM' END);
            IF to_regclass(partition) IS NULL THEN
                PERFORM add_partition(
                    parent.name, partition, parent.time_column, first, first + ('1 ' || parent.width)::interval);
                RETURN NEXT partition;
            END IF;
            first := first + ('1 ' || parent.width)::interval;
        END LOOP;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION create_partitions(timestamptz, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION create_partitions(timestamptz, interval) TO mcp_manager_app, mcp_manager_admin;
COMMENT ON FUNCTION create_partitions(timestamptz, interval) IS
    'Makes the partitions from since until since + ahead that are missing, and returns their names. Call it daily.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP FUNCTION create_partitions(timestamptz, interval);
DROP FUNCTION add_partition(regclass, text, text, timestamptz, timestamptz);
DROP FUNCTION describe_partition(regclass, regclass);

RESET ROLE;
