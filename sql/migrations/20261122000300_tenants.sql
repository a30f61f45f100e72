-- Tenants: who shares the proxy. Every tenant-owned row names one of these.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE tenants (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    name text NOT NULL CHECK (name <> ''),
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'archived')),
    plan text NOT NULL DEFAULT 'free' CHECK (plan IN ('free', 'team', 'enterprise')),
    billing_email text,
    max_servers integer CHECK (max_servers >= 0),
    max_api_keys integer CHECK (max_api_keys >= 0),
    max_requests_per_month bigint CHECK (max_requests_per_month >= 0),
    fair_share_weight double precision NOT NULL DEFAULT 1 CHECK (fair_share_weight > 0),
    audit_mode text NOT NULL DEFAULT 'standard' CHECK (audit_mode IN ('standard', 'strict')),
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    suspended_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE tenants IS
    'The organisations that share this installation. The system tenant (all zeros) owns what concerns all of them.';
COMMENT ON COLUMN tenants.id IS 'Identity of the row.';
COMMENT ON COLUMN tenants.slug IS 'Short name, used in configuration and on the command line.';
COMMENT ON COLUMN tenants.name IS 'Name for people.';
COMMENT ON COLUMN tenants.status IS 'A tenant that is not active is refused on every listener.';
COMMENT ON COLUMN tenants.plan IS 'What the tenant pays for.';
COMMENT ON COLUMN tenants.billing_email IS 'Where invoices go.';
COMMENT ON COLUMN tenants.max_servers IS 'Most servers the tenant may register; null is no limit.';
COMMENT ON COLUMN tenants.max_api_keys IS 'Most keys in force at a time; null is no limit.';
COMMENT ON COLUMN tenants.max_requests_per_month IS 'Most requests in a calendar month; null is no limit.';
COMMENT ON COLUMN tenants.fair_share_weight IS
    'Share of the global limit under load, in proportion to the other active tenants.';
COMMENT ON COLUMN tenants.audit_mode IS 'strict: a call that cannot be recorded is refused.';
COMMENT ON COLUMN tenants.settings IS 'Settings of the front end.';
COMMENT ON COLUMN tenants.suspended_at IS 'When the tenant was suspended; null while active.';
COMMENT ON COLUMN tenants.created_at IS 'When the row was made.';
COMMENT ON COLUMN tenants.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE tenants;

RESET ROLE;
