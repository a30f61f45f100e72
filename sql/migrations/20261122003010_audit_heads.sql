-- Signed heads of the chains of audit_logs: how many rows a tenant has in a segment, and the hash that stands for all of
-- them. Only ever added, as the rows are.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE audit_heads (
    tenant_id uuid NOT NULL,
    segment text NOT NULL,
    row_count integer NOT NULL CHECK (row_count > 0),
    is_final boolean NOT NULL,
    head bytea NOT NULL,
    first_ts timestamptz NOT NULL,
    last_ts timestamptz NOT NULL,
    previous text,
    key_id text,
    signature bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, segment, row_count, is_final, last_ts),
    CHECK (first_ts <= last_ts)
) PARTITION BY RANGE (last_ts);
CREATE TABLE audit_heads_default PARTITION OF audit_heads DEFAULT;

COMMENT ON TABLE audit_heads IS
    'Signed heads of the chains of audit_logs: with the public key they prove its rows complete and unchanged.';
COMMENT ON COLUMN audit_heads.tenant_id IS 'The tenant whose rows these are. No foreign key: as in audit_logs.';
COMMENT ON COLUMN audit_heads.segment IS 'The segment of a spool that the rows came through.';
COMMENT ON COLUMN audit_heads.row_count IS 'Rows of the chain so far: the seq of its last row.';
COMMENT ON COLUMN audit_heads.is_final IS 'Whether the segment is shipped whole, so that no row follows.';
COMMENT ON COLUMN audit_heads.head IS 'chain of the last row.';
COMMENT ON COLUMN audit_heads.first_ts IS 'The earliest ts of these rows.';
COMMENT ON COLUMN audit_heads.last_ts IS 'The latest ts of these rows; the partition key.';
COMMENT ON COLUMN audit_heads.previous IS
    'The segment of the same spool before this one in which the tenant has rows; null for its first.';
COMMENT ON COLUMN audit_heads.key_id IS 'Which key signed; null if none.';
COMMENT ON COLUMN audit_heads.signature IS 'Ed25519 signature of all columns but created_at; null if there was no key.';
COMMENT ON COLUMN audit_heads.created_at IS 'When the row was made.';

SELECT describe_partition('audit_heads', 'audit_heads_default');
SELECT isolate_tenant_rows('audit_heads');
SELECT isolate_tenant_rows('audit_heads_default');
CREATE POLICY admin_plane ON audit_heads TO mcp_manager_admin USING (true) WITH CHECK (true);
CREATE POLICY audit_writer ON audit_heads FOR INSERT TO mcp_manager_audit WITH CHECK (true);
GRANT INSERT ON audit_heads TO mcp_manager_audit;
GRANT SELECT ON audit_heads TO mcp_manager_app;
GRANT SELECT, INSERT, DELETE ON audit_heads TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE audit_heads;

RESET ROLE;
