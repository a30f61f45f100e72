-- What operators tell their users: flags, maintenance, announcements.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE feature_flags (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key text NOT NULL CHECK (key <> ''),
    description text,
    is_enabled boolean NOT NULL DEFAULT false,
    rollout_percent double precision NOT NULL DEFAULT 100 CHECK (rollout_percent BETWEEN 0 AND 100),
    rules jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(rules) = 'array'),
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, key)
);

COMMENT ON TABLE feature_flags IS
    'Features that are on for some.';
COMMENT ON COLUMN feature_flags.id IS 'Identity of the row.';
COMMENT ON COLUMN feature_flags.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN feature_flags.key IS 'Name of the flag, unique in the tenant.';
COMMENT ON COLUMN feature_flags.description IS 'What it switches.';
COMMENT ON COLUMN feature_flags.is_enabled IS 'Whether the flag is on at all.';
COMMENT ON COLUMN feature_flags.rollout_percent IS 'Share of principals for whom it is on.';
COMMENT ON COLUMN feature_flags.rules IS 'Conditions and variants; the first that fits decides.';
COMMENT ON COLUMN feature_flags.created_by IS 'The user who made it.';
COMMENT ON COLUMN feature_flags.created_at IS 'When the row was made.';
COMMENT ON COLUMN feature_flags.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE maintenance_windows (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid,
    title text NOT NULL CHECK (title <> ''),
    description text,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'scheduled' CHECK (status IN ('scheduled', 'active', 'completed', 'cancelled')),
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE,
    CHECK (starts_at < ends_at)
);

COMMENT ON TABLE maintenance_windows IS
    'Times at which servers are drained and answer 503 with Retry-After.';
COMMENT ON COLUMN maintenance_windows.id IS 'Identity of the row.';
COMMENT ON COLUMN maintenance_windows.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN maintenance_windows.server_id IS 'The server; null is every server of the tenant.';
COMMENT ON COLUMN maintenance_windows.title IS 'What is done.';
COMMENT ON COLUMN maintenance_windows.description IS 'More about it, for people.';
COMMENT ON COLUMN maintenance_windows.starts_at IS 'Begin.';
COMMENT ON COLUMN maintenance_windows.ends_at IS 'End; what Retry-After points to.';
COMMENT ON COLUMN maintenance_windows.status IS 'Where it stands; a cancelled window has no effect.';
COMMENT ON COLUMN maintenance_windows.created_by IS 'The user who made it.';
COMMENT ON COLUMN maintenance_windows.created_at IS 'When the row was made.';
COMMENT ON COLUMN maintenance_windows.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE system_announcements (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    title text NOT NULL CHECK (title <> ''),
    body text NOT NULL,
    severity text NOT NULL DEFAULT 'info' CHECK (severity IN ('info', 'warning', 'critical')),
    is_dismissible boolean NOT NULL DEFAULT true,
    starts_at timestamptz NOT NULL DEFAULT now(),
    ends_at timestamptz,
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (ends_at IS NULL OR starts_at < ends_at)
);

COMMENT ON TABLE system_announcements IS
    'Messages shown to users.';
COMMENT ON COLUMN system_announcements.id IS 'Identity of the row.';
COMMENT ON COLUMN system_announcements.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN system_announcements.title IS 'Headline.';
COMMENT ON COLUMN system_announcements.body IS 'Text.';
COMMENT ON COLUMN system_announcements.severity IS 'How it is shown.';
COMMENT ON COLUMN system_announcements.is_dismissible IS 'Whether a user may put it away.';
COMMENT ON COLUMN system_announcements.starts_at IS 'From when it is shown.';
COMMENT ON COLUMN system_announcements.ends_at IS 'Until when it is shown; null is until deleted.';
COMMENT ON COLUMN system_announcements.created_by IS 'The user who made it.';
COMMENT ON COLUMN system_announcements.created_at IS 'When the row was made.';
COMMENT ON COLUMN system_announcements.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE announcement_acknowledgments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    announcement_id uuid NOT NULL REFERENCES system_announcements (id) ON DELETE CASCADE,
    user_id text NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    acknowledged_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (announcement_id, user_id)
);

COMMENT ON TABLE announcement_acknowledgments IS
    'Who has seen which announcement.';
COMMENT ON COLUMN announcement_acknowledgments.id IS 'Identity of the row.';
COMMENT ON COLUMN announcement_acknowledgments.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN announcement_acknowledgments.announcement_id IS
    'The announcement: one of the tenant''s, or of the system tenant.';
COMMENT ON COLUMN announcement_acknowledgments.user_id IS 'The user.';
COMMENT ON COLUMN announcement_acknowledgments.acknowledged_at IS 'When the user put it away.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE announcement_acknowledgments;
DROP TABLE system_announcements;
DROP TABLE maintenance_windows;
DROP TABLE feature_flags;

RESET ROLE;
