-- One row per request: what was asked, what came of it, how long it took.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE request_logs (
    id uuid NOT NULL,
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    server_id uuid,
    server_name text,
    route_name text,
    principal_id text,
    user_id text,
    api_key_id text,
    trace_id text,
    client_ip inet,
    http_method text NOT NULL,
    method text,
    tool_name text,
    protocol_version text,
    status_code smallint NOT NULL,
    error_code integer,
    outcome text NOT NULL,
    reason text,
    duration_ms double precision NOT NULL CHECK (duration_ms >= 0),
    upstream_ms double precision CHECK (upstream_ms >= 0),
    bytes_in bigint NOT NULL DEFAULT 0 CHECK (bytes_in >= 0),
    bytes_out bigint NOT NULL DEFAULT 0 CHECK (bytes_out >= 0),
    instance text NOT NULL DEFAULT '',
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE request_logs_default PARTITION OF request_logs DEFAULT;

COMMENT ON TABLE request_logs IS
    'One row per request that reached the proxy, refusals included.';
COMMENT ON COLUMN request_logs.id IS 'Identity of the record (UUIDv7, born with the request).';
COMMENT ON COLUMN request_logs.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN request_logs.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN request_logs.server_id IS 'The server, when it is a row of mcp_servers.';
COMMENT ON COLUMN request_logs.server_name IS 'Name of the server; null if none was reached.';
COMMENT ON COLUMN request_logs.route_name IS 'Name of the route; null if none matched.';
COMMENT ON COLUMN request_logs.principal_id IS 'Who asked; null before authentication.';
COMMENT ON COLUMN request_logs.user_id IS 'The user in whose name, if any.';
COMMENT ON COLUMN request_logs.api_key_id IS 'The API key, if one was used.';
COMMENT ON COLUMN request_logs.trace_id IS 'Trace id (W3C), if the client sent one.';
COMMENT ON COLUMN request_logs.client_ip IS 'Address of the client.';
COMMENT ON COLUMN request_logs.http_method IS 'HTTP method.';
COMMENT ON COLUMN request_logs.method IS 'JSON-RPC method, when the body was read.';
COMMENT ON COLUMN request_logs.tool_name IS 'The tool, for tools/call.';
COMMENT ON COLUMN request_logs.protocol_version IS 'Protocol revision, when known.';
COMMENT ON COLUMN request_logs.status_code IS 'HTTP status of the answer; 0 if none was sent.';
COMMENT ON COLUMN request_logs.error_code IS 'JSON-RPC error code, when the proxy answered with one.';
COMMENT ON COLUMN request_logs.outcome IS 'What became of it, as in the metrics.';
COMMENT ON COLUMN request_logs.reason IS 'Why it was refused or failed.';
COMMENT ON COLUMN request_logs.duration_ms IS 'From the first byte read to the last written, in milliseconds.';
COMMENT ON COLUMN request_logs.upstream_ms IS 'Of it, until the first byte of the server, in milliseconds.';
COMMENT ON COLUMN request_logs.bytes_in IS 'Bytes of the request body.';
COMMENT ON COLUMN request_logs.bytes_out IS 'Bytes of the response body.';
COMMENT ON COLUMN request_logs.instance IS 'Name of the proxy instance that writes the row.';

SELECT describe_partition('request_logs', 'request_logs_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE request_logs;

RESET ROLE;
