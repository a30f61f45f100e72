-- What went wrong, what looked like an attack, and what the system did.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE error_logs (
    id uuid NOT NULL,
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    severity text NOT NULL DEFAULT 'error' CHECK (severity IN ('warning', 'error', 'critical')),
    component text NOT NULL,
    error_type text NOT NULL,
    message text NOT NULL,
    fingerprint text NOT NULL,
    stack text,
    context jsonb NOT NULL DEFAULT '{}',
    request_id uuid,
    resolved_at timestamptz,
    resolved_by text,
    instance text NOT NULL DEFAULT '',
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE error_logs_default PARTITION OF error_logs DEFAULT;

COMMENT ON TABLE error_logs IS
    'Errors of the proxy and of servers, grouped by fingerprint.';
COMMENT ON COLUMN error_logs.id IS 'Identity of the record (UUIDv7, born with the request).';
COMMENT ON COLUMN error_logs.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN error_logs.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN error_logs.severity IS 'How bad it is.';
COMMENT ON COLUMN error_logs.component IS 'Part of the proxy that noticed.';
COMMENT ON COLUMN error_logs.error_type IS 'Class of the error.';
COMMENT ON COLUMN error_logs.message IS 'What happened, without input of the client.';
COMMENT ON COLUMN error_logs.fingerprint IS 'The same for errors of the same cause.';
COMMENT ON COLUMN error_logs.stack IS 'Where it happened.';
COMMENT ON COLUMN error_logs.context IS 'Further facts, without secrets.';
COMMENT ON COLUMN error_logs.request_id IS 'The request during which it happened.';
COMMENT ON COLUMN error_logs.resolved_at IS 'When someone marked it as resolved.';
COMMENT ON COLUMN error_logs.resolved_by IS 'Who did.';
COMMENT ON COLUMN error_logs.instance IS 'Name of the proxy instance that writes the row.';

SELECT describe_partition('error_logs', 'error_logs_default');

CREATE TABLE security_events (
    id uuid NOT NULL,
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    client_ip inet,
    principal_id text,
    description text NOT NULL,
    score double precision CHECK (score >= 0),
    action_taken text NOT NULL DEFAULT 'logged' CHECK (action_taken IN ('logged', 'throttled', 'blocked', 'revoked')),
    details jsonb NOT NULL DEFAULT '{}',
    request_id uuid,
    resolved_at timestamptz,
    resolved_by text,
    instance text NOT NULL DEFAULT '',
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE security_events_default PARTITION OF security_events DEFAULT;

COMMENT ON TABLE security_events IS
    'What looked like an attack, and what was done about it.';
COMMENT ON COLUMN security_events.id IS 'Identity of the record (UUIDv7, born with the request).';
COMMENT ON COLUMN security_events.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN security_events.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN security_events.event_type IS
    'Kind: bad_key, unknown_route, session_guess, header_mismatch, flood, and so on.';
COMMENT ON COLUMN security_events.severity IS 'How bad it is.';
COMMENT ON COLUMN security_events.client_ip IS 'Address that it came from.';
COMMENT ON COLUMN security_events.principal_id IS 'Who, when known.';
COMMENT ON COLUMN security_events.description IS 'What happened, without input of the client.';
COMMENT ON COLUMN security_events.score IS 'Violation score of the address after it.';
COMMENT ON COLUMN security_events.action_taken IS 'What the proxy did.';
COMMENT ON COLUMN security_events.details IS 'Further facts, without secrets.';
COMMENT ON COLUMN security_events.request_id IS 'The request concerned.';
COMMENT ON COLUMN security_events.resolved_at IS 'When someone looked into it.';
COMMENT ON COLUMN security_events.resolved_by IS 'Who did.';
COMMENT ON COLUMN security_events.instance IS 'Name of the proxy instance that writes the row.';

SELECT describe_partition('security_events', 'security_events_default');

CREATE TABLE system_events (
    id uuid NOT NULL,
    ts timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    event_type text NOT NULL,
    severity text NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'error', 'critical')),
    component text NOT NULL,
    message text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}',
    instance text NOT NULL DEFAULT '',
    PRIMARY KEY (id, ts)
) PARTITION BY RANGE (ts);
CREATE TABLE system_events_default PARTITION OF system_events DEFAULT;

COMMENT ON TABLE system_events IS
    'What the installation did: starts, stops, reloads, migrations, openings of breakers.';
COMMENT ON COLUMN system_events.id IS 'Identity of the record (UUIDv7, born with the request).';
COMMENT ON COLUMN system_events.ts IS 'When it happened; the partition key.';
COMMENT ON COLUMN system_events.tenant_id IS
    'The tenant concerned; the system tenant when none is known. No foreign key: a record outlives what it is about.';
COMMENT ON COLUMN system_events.event_type IS 'Kind: start, stop, reload, migrate, breaker_open, and so on.';
COMMENT ON COLUMN system_events.severity IS 'How much it matters.';
COMMENT ON COLUMN system_events.component IS 'Part of the proxy concerned.';
COMMENT ON COLUMN system_events.message IS 'What happened.';
COMMENT ON COLUMN system_events.details IS 'Further facts, without secrets.';
COMMENT ON COLUMN system_events.instance IS 'Name of the proxy instance that writes the row.';

SELECT describe_partition('system_events', 'system_events_default');

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE system_events;
DROP TABLE security_events;
DROP TABLE error_logs;

RESET ROLE;
