-- Making partitions gives way to everybody else. All locks of a table are taken before anything is touched, the parent
-- before its default partition, as a query takes them; nobody waits for us longer than lock_timeout, and we wait for
-- nobody while we hold a lock that a query may need. So there is no circle in which PostgreSQL would end a query.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE FUNCTION lock_for_partitions(parent regclass, may_wait boolean) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    how text := CASE WHEN may_wait THEN '' ELSE ' NOWAIT' END;
    referenced regclass;
BEGIN
    -- A partition gets the foreign keys of its parent, for which those tables are locked. Queries do not mind.
    FOR referenced IN
        SELECT DISTINCT confrelid::regclass FROM pg_constraint WHERE conrelid = parent AND contype = 'f' ORDER BY 1
    LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE%s', referenced, how);
    END LOOP;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE%s', parent, how);
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', quote_ident(parent || '_default'));
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;  -- with none of the locks
END
$$;
REVOKE ALL ON FUNCTION lock_for_partitions(regclass, boolean) FROM PUBLIC;
COMMENT ON FUNCTION lock_for_partitions(regclass, boolean) IS
    'Takes the locks for making partitions of a table; false, and none of them, when it is in use.';

CREATE OR REPLACE FUNCTION create_partitions(since timestamptz DEFAULT now(), ahead interval DEFAULT '7 days')
RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' SET lock_timeout = '5s' AS $$
DECLARE
    parent record;
    first timestamptz;
    partition text;
    is_ours boolean;
    has_made boolean := false;
    in_use text;
BEGIN
    IF ahead > interval '400 days' THEN
        RAISE EXCEPTION 'create_partitions: at most 400 days ahead' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('create_partitions'));
    PERFORM set_config('lock_timeout', '100ms', true);  -- until this function ends
    FOR parent IN
        SELECT c.oid::regclass AS name, a.attname AS time_column,
               CASE WHEN c.relname IN ('request_logs', 'audit_logs') THEN 'day' ELSE 'month' END AS width
        FROM pg_partitioned_table p
        JOIN pg_class c ON c.oid = p.partrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
        WHERE c.relowner = 'mcp_manager_owner'::regrole AND c.relnamespace = 'public'::regnamespace
        ORDER BY c.relname
    LOOP
        is_ours := false;
        first := date_trunc(parent.width, since);
        WHILE first < since + ahead LOOP
            partition := parent.name || to_char(first, CASE parent.width WHEN 'day' THEN '_YYYYMMDD' ELSE '_YYYYMM' END);
            IF to_regclass(partition) IS NULL THEN
                -- What was made is locked until the transaction ends: from then on no waiting.
                is_ours := is_ours OR lock_for_partitions(parent.name, NOT has_made);
                IF NOT is_ours THEN
                    in_use := parent.name;
                    EXIT;
                END IF;
                PERFORM add_partition(
                    parent.name, partition, parent.time_column, first, first + ('1 ' || parent.width)::interval);
                has_made := true;
                RETURN NEXT partition;
            END IF;
            first := first + ('1 ' || parent.width)::interval;
        END LOOP;
    END LOOP;
    IF in_use IS NOT NULL AND NOT has_made THEN
        RAISE EXCEPTION 'create_partitions: % is in use', in_use USING ERRCODE = 'lock_not_available';
    END IF;
END
$$;
COMMENT ON FUNCTION create_partitions(timestamptz, interval) IS
    'Makes partitions from since until since + ahead that are missing, and returns their names; those of tables in use are left. Call it daily, and again until it makes none.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

CREATE OR REPLACE FUNCTION create_partitions(since timestamptz DEFAULT now(), ahead interval DEFAULT '7 days') RETURNS SETOF text
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
COMMENT ON FUNCTION create_partitions(timestamptz, interval) IS
    'Makes the partitions from since until since + ahead that are missing, and returns their names. Call it daily.';
DROP FUNCTION lock_for_partitions(regclass, boolean);

RESET ROLE;
