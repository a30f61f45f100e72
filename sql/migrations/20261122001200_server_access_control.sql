-- Who may use which server and tool, and when.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE server_access_control (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid,
    subject_type text NOT NULL CHECK (subject_type IN ('everyone', 'role', 'user', 'api_key', 'anonymous')),
    subject_id text,
    effect text NOT NULL CHECK (effect IN ('allow', 'deny')),
    tools text[] NOT NULL DEFAULT '{}',
    priority integer NOT NULL DEFAULT 0,
    valid_from timestamptz,
    valid_until timestamptz,
    daily_from time,
    daily_until time,
    days_of_week smallint[] NOT NULL DEFAULT '{}' CHECK (days_of_week <@ '{1,2,3,4,5,6,7}'::smallint[]),
    time_zone text NOT NULL DEFAULT 'UTC',
    is_enabled boolean NOT NULL DEFAULT true,
    reason text,
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE,
    CHECK ((daily_from IS NULL) = (daily_until IS NULL)),
    CHECK (valid_from IS NULL OR valid_until IS NULL OR valid_from < valid_until),
    CHECK ((subject_type IN ('everyone', 'anonymous')) = (subject_id IS NULL))
);

COMMENT ON TABLE server_access_control IS
    'Rules that allow or deny a server or tool to a subject, some only at certain times.';
COMMENT ON COLUMN server_access_control.id IS 'Identity of the row.';
COMMENT ON COLUMN server_access_control.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_access_control.server_id IS 'The server; null is every server of the tenant.';
COMMENT ON COLUMN server_access_control.subject_type IS 'Whom the rule is about.';
COMMENT ON COLUMN server_access_control.subject_id IS 'Role, user or key; null where the type says it all.';
COMMENT ON COLUMN server_access_control.effect IS 'What the rule does; deny wins among equal priorities.';
COMMENT ON COLUMN server_access_control.tools IS 'Names or globs of tools; empty is the whole server.';
COMMENT ON COLUMN server_access_control.priority IS 'Higher is asked first.';
COMMENT ON COLUMN server_access_control.valid_from IS 'From when the rule holds.';
COMMENT ON COLUMN server_access_control.valid_until IS 'Until when the rule holds.';
COMMENT ON COLUMN server_access_control.daily_from IS 'Begin of the daily window; it may end the next day.';
COMMENT ON COLUMN server_access_control.daily_until IS 'End of the daily window.';
COMMENT ON COLUMN server_access_control.days_of_week IS 'ISO days on which the window begins; empty is every day.';
COMMENT ON COLUMN server_access_control.time_zone IS 'IANA zone of window and days.';
COMMENT ON COLUMN server_access_control.is_enabled IS 'Whether the rule is in force.';
COMMENT ON COLUMN server_access_control.reason IS 'Why it was made.';
COMMENT ON COLUMN server_access_control.created_by IS 'The user who made it.';
COMMENT ON COLUMN server_access_control.created_at IS 'When the row was made.';
COMMENT ON COLUMN server_access_control.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE server_access_control;

RESET ROLE;
