-- Credentials that programs present. Only digests are stored, never a secret.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE enhanced_api_keys (
    id text PRIMARY KEY CHECK (id ~ '^[0-9A-Za-z]{12}$'),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id text REFERENCES "user" (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    scopes text[] NOT NULL DEFAULT '{read,proxy}' CHECK (scopes <@ '{read,write,proxy,admin}'::text[]),
    secret_hmac bytea NOT NULL CHECK (octet_length(secret_hmac) = 32),
    pepper_version smallint NOT NULL DEFAULT 1 CHECK (pepper_version > 0),
    tier text NOT NULL DEFAULT 'user' CHECK (tier IN ('admin', 'user', 'anonymous')),
    allowed_ips cidr[] NOT NULL DEFAULT '{}',
    allowed_origins text[] NOT NULL DEFAULT '{}',
    allowed_servers text[] NOT NULL DEFAULT '{}',
    allowed_tools text[] NOT NULL DEFAULT '{}',
    requests_per_minute integer CHECK (requests_per_minute > 0),
    burst integer CHECK (burst > 0),
    not_before timestamptz,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    last_used_ip inet,
    revoked_reason text,
    rotated_from text REFERENCES enhanced_api_keys (id) ON DELETE SET NULL,
    created_by text REFERENCES "user" (id) ON DELETE SET NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (not_before IS NULL OR expires_at IS NULL OR not_before < expires_at)
);

COMMENT ON TABLE enhanced_api_keys IS
    'API keys mcpm_<id>_<secret>_<crc32> with scopes and restrictions.';
COMMENT ON COLUMN enhanced_api_keys.id IS 'The public part of the key.';
COMMENT ON COLUMN enhanced_api_keys.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN enhanced_api_keys.user_id IS 'The user in whose name it acts; null for a machine.';
COMMENT ON COLUMN enhanced_api_keys.name IS 'What its owner calls it.';
COMMENT ON COLUMN enhanced_api_keys.scopes IS 'What it may do: read, write, proxy, admin.';
COMMENT ON COLUMN enhanced_api_keys.secret_hmac IS 'HMAC-SHA256 of the secret part under the pepper.';
COMMENT ON COLUMN enhanced_api_keys.pepper_version IS 'Which pepper was used.';
COMMENT ON COLUMN enhanced_api_keys.tier IS 'Decides the default limits.';
COMMENT ON COLUMN enhanced_api_keys.allowed_ips IS 'Networks it may be used from; empty is anywhere.';
COMMENT ON COLUMN enhanced_api_keys.allowed_origins IS 'Origins it may be used from; empty is any.';
COMMENT ON COLUMN enhanced_api_keys.allowed_servers IS 'Names or globs of servers it may use; empty is any.';
COMMENT ON COLUMN enhanced_api_keys.allowed_tools IS 'Names or globs of tools it may call; empty is any.';
COMMENT ON COLUMN enhanced_api_keys.requests_per_minute IS 'Own limit; null is that of its tier.';
COMMENT ON COLUMN enhanced_api_keys.burst IS 'Requests at once; null is a minute''s worth.';
COMMENT ON COLUMN enhanced_api_keys.not_before IS 'Until then it is refused.';
COMMENT ON COLUMN enhanced_api_keys.expires_at IS 'From then on it is refused; null is never.';
COMMENT ON COLUMN enhanced_api_keys.revoked_at IS 'When it was revoked; null while it is in force.';
COMMENT ON COLUMN enhanced_api_keys.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN enhanced_api_keys.usage_count IS 'How often it was used.';
COMMENT ON COLUMN enhanced_api_keys.last_used_ip IS 'Where it was last used.';
COMMENT ON COLUMN enhanced_api_keys.revoked_reason IS 'Why it was revoked.';
COMMENT ON COLUMN enhanced_api_keys.rotated_from IS
    'The key that it replaces; both are good until the old one expires.';
COMMENT ON COLUMN enhanced_api_keys.created_by IS 'The user who made it.';
COMMENT ON COLUMN enhanced_api_keys.created_at IS 'When the row was made.';
COMMENT ON COLUMN enhanced_api_keys.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id text REFERENCES "user" (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    scopes text[] NOT NULL DEFAULT '{read,proxy}' CHECK (scopes <@ '{read,write,proxy,admin}'::text[]),
    key_hash bytea NOT NULL UNIQUE CHECK (octet_length(key_hash) = 32),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE api_keys IS
    'Legacy API keys: opaque strings, still accepted.';
COMMENT ON COLUMN api_keys.id IS 'Identity of the row.';
COMMENT ON COLUMN api_keys.tenant_id IS 'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN api_keys.user_id IS 'The user in whose name it acts; null for a machine.';
COMMENT ON COLUMN api_keys.name IS 'What its owner calls it.';
COMMENT ON COLUMN api_keys.scopes IS 'What it may do: read, write, proxy, admin.';
COMMENT ON COLUMN api_keys.key_hash IS 'SHA-256 of the key.';
COMMENT ON COLUMN api_keys.expires_at IS 'From then on it is refused; null is never.';
COMMENT ON COLUMN api_keys.revoked_at IS 'When it was revoked; null while it is in force.';
COMMENT ON COLUMN api_keys.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN api_keys.usage_count IS 'How often it was used.';
COMMENT ON COLUMN api_keys.created_at IS 'When the row was made.';
COMMENT ON COLUMN api_keys.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE api_tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id text REFERENCES "user" (id) ON DELETE CASCADE,
    name text NOT NULL CHECK (name <> ''),
    scopes text[] NOT NULL DEFAULT '{read,proxy}' CHECK (scopes <@ '{read,write,proxy,admin}'::text[]),
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE api_tokens IS
    'Tokens that users make in the front end for its API.';
COMMENT ON COLUMN api_tokens.id IS 'Identity of the row.';
COMMENT ON COLUMN api_tokens.tenant_id IS 'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN api_tokens.user_id IS 'The user in whose name it acts; null for a machine.';
COMMENT ON COLUMN api_tokens.name IS 'What its owner calls it.';
COMMENT ON COLUMN api_tokens.scopes IS 'What it may do: read, write, proxy, admin.';
COMMENT ON COLUMN api_tokens.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN api_tokens.expires_at IS 'From then on it is refused; null is never.';
COMMENT ON COLUMN api_tokens.revoked_at IS 'When it was revoked; null while it is in force.';
COMMENT ON COLUMN api_tokens.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN api_tokens.usage_count IS 'How often it was used.';
COMMENT ON COLUMN api_tokens.created_at IS 'When the row was made.';
COMMENT ON COLUMN api_tokens.updated_at IS 'When the row last changed; set by a trigger.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE api_tokens;
DROP TABLE api_keys;
DROP TABLE enhanced_api_keys;

RESET ROLE;
