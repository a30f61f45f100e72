-- What an operator orders a circuit breaker to be. circuit_breakers says what each instance sees; this is for all.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE breaker_orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'closed')),
    reason text,
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE breaker_orders IS
    'An operator''s order to the circuit breakers of a server, in every instance. Without a row they decide themselves.';
COMMENT ON COLUMN breaker_orders.id IS 'Identity of the row.';
COMMENT ON COLUMN breaker_orders.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN breaker_orders.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN breaker_orders.state IS
    'open refuses until the row changes or is gone; closed lets through at once, and forgets earlier failures.';
COMMENT ON COLUMN breaker_orders.reason IS 'Why, for people.';
COMMENT ON COLUMN breaker_orders.created_by IS 'The user who made it.';
COMMENT ON COLUMN breaker_orders.created_at IS 'When the row was made.';
COMMENT ON COLUMN breaker_orders.updated_at IS
    'When it was ordered last; set by a trigger. An order that is given again is carried out again.';

CREATE TRIGGER touch_updated_at BEFORE UPDATE ON breaker_orders
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
SELECT isolate_tenant_rows('breaker_orders');
CREATE POLICY admin_plane ON breaker_orders TO mcp_manager_admin USING (true) WITH CHECK (true);
CREATE POLICY snapshot ON breaker_orders FOR SELECT TO mcp_manager_sync USING (true);
-- The data plane obeys, and gives no orders.
GRANT SELECT ON breaker_orders TO mcp_manager_app, mcp_manager_sync;
GRANT SELECT, INSERT, UPDATE, DELETE ON breaker_orders TO mcp_manager_admin;
-- No column is quiet: the time of an order is news.
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON breaker_orders
    FOR EACH ROW EXECUTE FUNCTION notify_change();
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON breaker_orders
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE breaker_orders;

RESET ROLE;
