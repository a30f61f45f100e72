-- What servers offer, learned from the lists that pass through the proxy.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE server_tools (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    name text NOT NULL,
    title text,
    description text,
    input_schema jsonb,
    output_schema jsonb,
    annotations jsonb NOT NULL DEFAULT '{}',
    avg_duration_ms double precision CHECK (avg_duration_ms >= 0),
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    error_count bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    is_available boolean NOT NULL DEFAULT true,
    last_used_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, name),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE server_tools IS
    'Tools that a server offers, learned from the lists that pass through.';
COMMENT ON COLUMN server_tools.id IS 'Identity of the row.';
COMMENT ON COLUMN server_tools.tenant_id IS 'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_tools.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN server_tools.name IS 'Name by which it is called.';
COMMENT ON COLUMN server_tools.title IS 'Name for people.';
COMMENT ON COLUMN server_tools.description IS 'What it does, in the server''s words.';
COMMENT ON COLUMN server_tools.input_schema IS 'JSON Schema of its arguments.';
COMMENT ON COLUMN server_tools.output_schema IS 'JSON Schema of its structured result.';
COMMENT ON COLUMN server_tools.annotations IS 'Hints such as readOnlyHint and destructiveHint.';
COMMENT ON COLUMN server_tools.avg_duration_ms IS 'Moving average of its calls, in milliseconds.';
COMMENT ON COLUMN server_tools.usage_count IS 'How often it was used through the proxy.';
COMMENT ON COLUMN server_tools.error_count IS 'How often a use of it failed.';
COMMENT ON COLUMN server_tools.is_available IS 'Whether the server''s last list still named it.';
COMMENT ON COLUMN server_tools.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN server_tools.first_seen_at IS 'When a list first named it.';
COMMENT ON COLUMN server_tools.last_seen_at IS 'When a list last named it.';

CREATE TABLE server_resources (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    uri_template text NOT NULL,
    is_template boolean NOT NULL DEFAULT false,
    name text NOT NULL,
    title text,
    description text,
    mime_type text,
    size_bytes bigint CHECK (size_bytes >= 0),
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    error_count bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    is_available boolean NOT NULL DEFAULT true,
    last_used_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, uri_template),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE server_resources IS
    'Resources and resource templates that a server offers.';
COMMENT ON COLUMN server_resources.id IS 'Identity of the row.';
COMMENT ON COLUMN server_resources.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_resources.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN server_resources.uri_template IS 'URI, or URI template (RFC 6570) when is_template.';
COMMENT ON COLUMN server_resources.is_template IS 'Whether uri_template is a template.';
COMMENT ON COLUMN server_resources.name IS 'Its name.';
COMMENT ON COLUMN server_resources.title IS 'Name for people.';
COMMENT ON COLUMN server_resources.description IS 'What it holds, in the server''s words.';
COMMENT ON COLUMN server_resources.mime_type IS 'Media type of its contents.';
COMMENT ON COLUMN server_resources.size_bytes IS 'Size of its contents, when the server says.';
COMMENT ON COLUMN server_resources.usage_count IS 'How often it was used through the proxy.';
COMMENT ON COLUMN server_resources.error_count IS 'How often a use of it failed.';
COMMENT ON COLUMN server_resources.is_available IS 'Whether the server''s last list still named it.';
COMMENT ON COLUMN server_resources.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN server_resources.first_seen_at IS 'When a list first named it.';
COMMENT ON COLUMN server_resources.last_seen_at IS 'When a list last named it.';

CREATE TABLE server_prompts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    server_id uuid NOT NULL,
    name text NOT NULL,
    title text,
    description text,
    arguments jsonb NOT NULL DEFAULT '[]',
    usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
    error_count bigint NOT NULL DEFAULT 0 CHECK (error_count >= 0),
    is_available boolean NOT NULL DEFAULT true,
    last_used_at timestamptz,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (server_id, name),
    FOREIGN KEY (tenant_id, server_id) REFERENCES mcp_servers (tenant_id, id) ON DELETE CASCADE
);

COMMENT ON TABLE server_prompts IS
    'Prompt templates that a server offers.';
COMMENT ON COLUMN server_prompts.id IS 'Identity of the row.';
COMMENT ON COLUMN server_prompts.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN server_prompts.server_id IS 'The server, of the same tenant.';
COMMENT ON COLUMN server_prompts.name IS 'Name by which it is fetched.';
COMMENT ON COLUMN server_prompts.title IS 'Name for people.';
COMMENT ON COLUMN server_prompts.description IS 'What it is for, in the server''s words.';
COMMENT ON COLUMN server_prompts.arguments IS 'Its arguments: name, description, required.';
COMMENT ON COLUMN server_prompts.usage_count IS 'How often it was used through the proxy.';
COMMENT ON COLUMN server_prompts.error_count IS 'How often a use of it failed.';
COMMENT ON COLUMN server_prompts.is_available IS 'Whether the server''s last list still named it.';
COMMENT ON COLUMN server_prompts.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN server_prompts.first_seen_at IS 'When a list first named it.';
COMMENT ON COLUMN server_prompts.last_seen_at IS 'When a list last named it.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE server_prompts;
DROP TABLE server_resources;
DROP TABLE server_tools;

RESET ROLE;
