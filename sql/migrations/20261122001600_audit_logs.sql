-- The audit trail: an intent before a call leaves, an outcome after it; a refusal has one row.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE audit_logs (
    tenant_id uuid NOT NULL,
    ts timestamptz NOT NULL,
    id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('intent', 'outcome', 'denied')),
    actor_type text NOT NULL CHECK (actor_type IN ('api_key', 'user', 'anonymous', 'system')),
    actor_id text,
    impersonated_by text,
    action text NOT NULL,
    resource_type text,
    resource_id text,
    server_name text,
    outcome text,
    reason text,
    risk_level text NOT NULL DEFAULT 'low' CHECK (risk_level IN ('low', 'medium', 'high', 'critical')),
    arguments jsonb,
    arguments_hash bytea,
    client_ip inet,
    user_agent text,
    session_ref text,
    trace_id text,
    status_code smallint,
    duration_ms double precision CHECK (duration_ms >= 0),
    instance text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant_id, ts, id, kind)
) PARTITION BY RANGE (ts);
CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT;

COMMENT ON TABLE audit_logs IS
    'The audit trail: intent and outcome of every call, and every refusal. Rows are only ever added.';
COMMENT ON COLUMN audit_logs.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN audit_logs.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN audit_logs.id IS 'Identity of the call (UUIDv7): its intent and its outcome share it.';
COMMENT ON COLUMN audit_logs.kind IS 'Which of the rows of a call this is.';
COMMENT ON COLUMN audit_logs.actor_type IS 'What kind of principal acted.';
COMMENT ON COLUMN audit_logs.actor_id IS 'Who acted.';
COMMENT ON COLUMN audit_logs.impersonated_by IS 'The administrator behind an impersonated session.';
COMMENT ON COLUMN audit_logs.action IS 'JSON-RPC method, or the name of an administrative action.';
COMMENT ON COLUMN audit_logs.resource_type IS
    'What was acted on: tool, prompt, resource, task, server, key, tenant.';
COMMENT ON COLUMN audit_logs.resource_id IS 'Its name or identity.';
COMMENT ON COLUMN audit_logs.server_name IS 'Name of the server concerned.';
COMMENT ON COLUMN audit_logs.outcome IS 'What became of it; null in an intent.';
COMMENT ON COLUMN audit_logs.reason IS 'Why it was refused or failed.';
COMMENT ON COLUMN audit_logs.risk_level IS 'How much harm the action could do.';
COMMENT ON COLUMN audit_logs.arguments IS 'Arguments without anything that looks like a secret.';
COMMENT ON COLUMN audit_logs.arguments_hash IS 'SHA-256 of the arguments as they were sent.';
COMMENT ON COLUMN audit_logs.client_ip IS 'Address of the client.';
COMMENT ON COLUMN audit_logs.user_agent IS 'User-Agent of the client.';
COMMENT ON COLUMN audit_logs.session_ref IS 'Digest of the MCP session id, if any.';
COMMENT ON COLUMN audit_logs.trace_id IS 'Trace id (W3C), if the client sent one.';
COMMENT ON COLUMN audit_logs.status_code IS 'HTTP status of the answer.';
COMMENT ON COLUMN audit_logs.duration_ms IS 'Duration of the call, in milliseconds.';
COMMENT ON COLUMN audit_logs.instance IS 'Name of the proxy instance that writes the row.';

SELECT describe_partition('audit_logs', 'audit_logs_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE audit_logs;

RESET ROLE;
