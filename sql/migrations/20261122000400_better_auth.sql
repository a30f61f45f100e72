-- The tables of Better-Auth, in its own shape. They belong to the front end: made only where they do not exist yet, and
-- dropped on the way down only if they were made here, which is known by their owner.

-- migrate:up
DO $$
DECLARE
    name text;
BEGIN
    -- What the front end made, it goes on owning. Our tables refer to users and listen to both tables.
    FOREACH name IN ARRAY ARRAY['user', 'session'] LOOP
        IF to_regclass(format('public.%I', name)) IS NOT NULL THEN
            EXECUTE format('GRANT SELECT, REFERENCES, TRIGGER ON public.%I TO mcp_manager_owner', name);
        END IF;
    END LOOP;
END
$$;

SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE IF NOT EXISTS "user" (
    id text PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL UNIQUE,
    email_verified boolean NOT NULL DEFAULT false,
    image text,
    role text DEFAULT 'user',
    banned boolean DEFAULT false,
    ban_reason text,
    ban_expires timestamptz,
    two_factor_enabled boolean DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS session (
    id text PRIMARY KEY,
    expires_at timestamptz NOT NULL,
    token text NOT NULL UNIQUE,
    ip_address text,
    user_agent text,
    user_id text NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    impersonated_by text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS account (
    id text PRIMARY KEY,
    account_id text NOT NULL,
    provider_id text NOT NULL,
    user_id text NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    access_token text,
    refresh_token text,
    id_token text,
    access_token_expires_at timestamptz,
    refresh_token_expires_at timestamptz,
    scope text,
    password text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS verification (
    id text PRIMARY KEY,
    identifier text NOT NULL,
    value text NOT NULL,
    expires_at timestamptz NOT NULL,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS two_factor_auth (
    id text PRIMARY KEY,
    secret text NOT NULL,
    backup_codes text NOT NULL,
    user_id text NOT NULL REFERENCES "user" (id) ON DELETE CASCADE
);

RESET ROLE;

-- migrate:down
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['two_factor_auth', 'verification', 'account', 'session', 'user'] LOOP
        IF (SELECT relowner = 'mcp_manager_owner'::regrole FROM pg_class
            WHERE oid = to_regclass(format('public.%I', name))) THEN
            EXECUTE format('DROP TABLE public.%I', name);
        ELSIF name IN ('session', 'user') THEN
            EXECUTE format('REVOKE SELECT, REFERENCES, TRIGGER ON public.%I FROM mcp_manager_owner', name);
        END IF;
    END LOOP;
END
$$;
