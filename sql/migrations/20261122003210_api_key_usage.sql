-- What each credential was used for, by the minute.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE api_key_usage (
    id uuid NOT NULL,
    period_start timestamptz NOT NULL,
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    credential_table text NOT NULL CHECK (credential_table IN ('enhanced_api_keys', 'api_keys', 'api_tokens')),
    credential_id text NOT NULL,
    instance text NOT NULL DEFAULT '',
    window_s integer NOT NULL CHECK (window_s > 0),
    request_count bigint NOT NULL DEFAULT 0 CHECK (request_count >= 0),
    error_count bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    tool_call_count bigint NOT NULL DEFAULT 0 CHECK (tool_call_count >= 0),
    bytes_in bigint NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out bigint NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    avg_ms double precision CHECK (avg_ms >= 0),
    p50_ms double precision CHECK (p50_ms >= 0),
    p95_ms double precision CHECK (p95_ms >= 0),
    p99_ms double precision CHECK (p99_ms >= 0),
    duration_bins integer[] NOT NULL DEFAULT '{}',
    duration_counts bigint[] NOT NULL DEFAULT '{}' CHECK (cardinality(duration_counts) = cardinality(duration_bins)),
    tools jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(tools) = 'object'),
    PRIMARY KEY (id, period_start)
) PARTITION BY RANGE (period_start);
CREATE TABLE api_key_usage_default PARTITION OF api_key_usage DEFAULT;

COMMENT ON TABLE api_key_usage IS
    'Requests of a credential, summed per window and instance: add the rows up.';
COMMENT ON COLUMN api_key_usage.id IS 'Identity of the row, made with it.';
COMMENT ON COLUMN api_key_usage.period_start IS 'Begin of the window; the partition key.';
COMMENT ON COLUMN api_key_usage.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN api_key_usage.credential_table IS 'The table in which the credential stands.';
COMMENT ON COLUMN api_key_usage.credential_id IS
    'Its id there; never a secret. No foreign key: use outlives the credential.';
COMMENT ON COLUMN api_key_usage.instance IS 'Name of the proxy instance that writes the row.';
COMMENT ON COLUMN api_key_usage.window_s IS
    'Length of the window, in seconds: a minute, or an hour when the database was away for long.';
COMMENT ON COLUMN api_key_usage.request_count IS 'Requests in the window, those that were refused included.';
COMMENT ON COLUMN api_key_usage.error_count IS 'Of these, failed.';
COMMENT ON COLUMN api_key_usage.tool_call_count IS 'Calls of tools.';
COMMENT ON COLUMN api_key_usage.bytes_in IS 'Bytes of request bodies.';
COMMENT ON COLUMN api_key_usage.bytes_out IS 'Bytes of response bodies.';
COMMENT ON COLUMN api_key_usage.avg_ms IS 'Mean duration, in milliseconds; null without any.';
COMMENT ON COLUMN api_key_usage.p50_ms IS 'Median duration, in milliseconds, to 1 %.';
COMMENT ON COLUMN api_key_usage.p95_ms IS '95th percentile of the duration, in milliseconds, to 1 %.';
COMMENT ON COLUMN api_key_usage.p99_ms IS '99th percentile of the duration, in milliseconds, to 1 %.';
COMMENT ON COLUMN api_key_usage.duration_bins IS 'Bins of the durations; duration_of_bin says what each stands for.';
COMMENT ON COLUMN api_key_usage.duration_counts IS 'How many durations fell into each.';
COMMENT ON COLUMN api_key_usage.tools IS
    'Calls by server and tool, for tools that a list of the server has named; the others stand under two empty names.';

SELECT describe_partition('api_key_usage', 'api_key_usage_default');

CREATE INDEX api_key_usage_key_time ON api_key_usage (credential_id, period_start DESC);
COMMENT ON INDEX api_key_usage_key_time IS 'Use of a credential, newest first.';
CREATE INDEX api_key_usage_tenant_time ON api_key_usage (tenant_id, period_start DESC);
COMMENT ON INDEX api_key_usage_tenant_time IS 'Use of a tenant''s credentials, newest first.';

SELECT isolate_tenant_rows('api_key_usage');
SELECT isolate_tenant_rows('api_key_usage_default');
CREATE POLICY admin_plane ON api_key_usage TO mcp_manager_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON api_key_usage TO mcp_manager_app;
GRANT SELECT, INSERT, DELETE ON api_key_usage TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE api_key_usage;

RESET ROLE;
