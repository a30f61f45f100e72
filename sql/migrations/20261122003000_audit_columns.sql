-- The audit trail says all that is known of a call, and where in which chain a row stands (docs/audit.md). Arguments and
-- results are kept as the text that was hashed, which jsonb would not keep.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE audit_logs
    ALTER COLUMN arguments TYPE json USING arguments::json,
    ADD COLUMN key_id text,
    ADD COLUMN auth_source text,
    ADD COLUMN user_id text,
    ADD COLUMN http_method text,
    ADD COLUMN route_name text,
    ADD COLUMN server_id uuid,
    ADD COLUMN era text,
    ADD COLUMN protocol_version text,
    ADD COLUMN bytes_in bigint,
    ADD COLUMN bytes_out bigint,
    ADD COLUMN messages smallint,
    ADD COLUMN tries smallint,
    ADD COLUMN streamed boolean,
    ADD COLUMN auth_ms double precision,
    ADD COLUMN limit_ms double precision,
    ADD COLUMN queue_ms double precision,
    ADD COLUMN connect_ms double precision,
    ADD COLUMN first_byte_ms double precision,
    ADD COLUMN error_code integer,
    ADD COLUMN error_detail text,
    ADD COLUMN span_id text,
    ADD COLUMN risk_reasons text,
    ADD COLUMN result json,
    ADD COLUMN segment text,
    ADD COLUMN seq integer,
    ADD COLUMN chain bytea,
    DROP CONSTRAINT audit_logs_kind_check,
    ADD CONSTRAINT audit_logs_kind_check CHECK (kind IN ('intent', 'outcome', 'denied', 'summary'));

COMMENT ON COLUMN audit_logs.key_id IS 'Id of the row that the credential stands in; never a secret.';
COMMENT ON COLUMN audit_logs.auth_source IS 'What kind of credential it was.';
COMMENT ON COLUMN audit_logs.user_id IS 'The user in whose name, if any.';
COMMENT ON COLUMN audit_logs.http_method IS 'HTTP method.';
COMMENT ON COLUMN audit_logs.route_name IS 'Name of the route; null if none matched.';
COMMENT ON COLUMN audit_logs.server_id IS 'The server, when it is a row of mcp_servers.';
COMMENT ON COLUMN audit_logs.era IS 'Which era of the protocol was spoken: modern or legacy.';
COMMENT ON COLUMN audit_logs.protocol_version IS 'Protocol revision, when known.';
COMMENT ON COLUMN audit_logs.bytes_in IS 'Bytes of the request body.';
COMMENT ON COLUMN audit_logs.bytes_out IS 'Bytes of the response body.';
COMMENT ON COLUMN audit_logs.messages IS 'JSON-RPC messages in the request; more than one in a batch.';
COMMENT ON COLUMN audit_logs.tries IS 'How many servers the request was sent to.';
COMMENT ON COLUMN audit_logs.streamed IS 'Whether the answer was a stream.';
COMMENT ON COLUMN audit_logs.auth_ms IS 'Of the duration, spent on finding out who asks, in milliseconds.';
COMMENT ON COLUMN audit_logs.limit_ms IS 'Of the duration, spent on limits, in milliseconds.';
COMMENT ON COLUMN audit_logs.queue_ms IS 'Of the duration, waited for the server to have room, in milliseconds.';
COMMENT ON COLUMN audit_logs.connect_ms IS 'Of the duration, spent on connecting, in milliseconds.';
COMMENT ON COLUMN audit_logs.first_byte_ms IS 'Of the duration, until the first byte of the server, in milliseconds.';
COMMENT ON COLUMN audit_logs.error_code IS 'JSON-RPC error code, when the proxy answered with one.';
COMMENT ON COLUMN audit_logs.error_detail IS 'More on the reason, for people.';
COMMENT ON COLUMN audit_logs.span_id IS 'Span id (W3C) of the request.';
COMMENT ON COLUMN audit_logs.risk_reasons IS 'Why the risk level is what it is: words, separated by commas.';
COMMENT ON COLUMN audit_logs.result IS 'The result without anything that looks like a secret, as text that is JSON.';
COMMENT ON COLUMN audit_logs.segment IS
    'The segment of a spool that the row came through, whose rows of one tenant form a chain; null for older rows.';
COMMENT ON COLUMN audit_logs.seq IS 'Place in the chain, from 1, without gaps.';
COMMENT ON COLUMN audit_logs.chain IS 'SHA-256 of the chain before this row, followed by the row itself.';

DO $$
BEGIN
    PERFORM describe_partition('audit_logs', inhrelid::regclass)
    FROM pg_inherits WHERE inhparent = 'audit_logs'::regclass;
END
$$;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

-- Rows of the kind that there was not before; FORCE hides them from the owner as from anyone.
ALTER TABLE audit_logs NO FORCE ROW LEVEL SECURITY;
DELETE FROM audit_logs WHERE kind = 'summary';
ALTER TABLE audit_logs FORCE ROW LEVEL SECURITY;

ALTER TABLE audit_logs
    DROP COLUMN key_id, DROP COLUMN auth_source, DROP COLUMN user_id, DROP COLUMN http_method, DROP COLUMN route_name,
    DROP COLUMN server_id, DROP COLUMN era, DROP COLUMN protocol_version, DROP COLUMN bytes_in, DROP COLUMN bytes_out,
    DROP COLUMN messages, DROP COLUMN tries, DROP COLUMN streamed, DROP COLUMN auth_ms, DROP COLUMN limit_ms,
    DROP COLUMN queue_ms, DROP COLUMN connect_ms, DROP COLUMN first_byte_ms, DROP COLUMN error_code,
    DROP COLUMN error_detail, DROP COLUMN span_id, DROP COLUMN risk_reasons, DROP COLUMN result, DROP COLUMN segment,
    DROP COLUMN seq, DROP COLUMN chain,
    ALTER COLUMN arguments TYPE jsonb USING arguments::jsonb,
    DROP CONSTRAINT audit_logs_kind_check,
    ADD CONSTRAINT audit_logs_kind_check CHECK (kind IN ('intent', 'outcome', 'denied'));

RESET ROLE;
