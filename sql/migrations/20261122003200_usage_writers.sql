-- Which batch of each writer was added to tenant_usage last, so that none is added twice.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE usage_writers (
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    instance text NOT NULL CHECK (instance <> ''),
    batch bigint NOT NULL CHECK (batch > 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, instance)
);

COMMENT ON TABLE usage_writers IS
    'The last batch of use that each instance added to a tenant: one whose commit was lost on the way is not added again.';
COMMENT ON COLUMN usage_writers.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN usage_writers.instance IS 'Name of the proxy instance; no two ever have the same.';
COMMENT ON COLUMN usage_writers.batch IS 'Number of its last batch; they only grow.';
COMMENT ON COLUMN usage_writers.updated_at IS
    'When the row last changed; set by a trigger. Rows of instances that are long gone are removed.';

CREATE TRIGGER touch_updated_at BEFORE UPDATE ON usage_writers
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
SELECT isolate_tenant_rows('usage_writers');
CREATE POLICY admin_plane ON usage_writers TO mcp_manager_admin USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON usage_writers TO mcp_manager_app;
GRANT SELECT ON usage_writers TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE usage_writers;

RESET ROLE;
