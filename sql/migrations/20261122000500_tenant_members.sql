-- Who belongs to a tenant, and who is asked to.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE tenant_members (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    user_id text NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    invited_by text REFERENCES "user" (id) ON DELETE SET NULL,
    joined_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, user_id)
);

COMMENT ON TABLE tenant_members IS
    'Users of a tenant and their role in it; a user may belong to several.';
COMMENT ON COLUMN tenant_members.id IS 'Identity of the row.';
COMMENT ON COLUMN tenant_members.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN tenant_members.user_id IS 'The member.';
COMMENT ON COLUMN tenant_members.role IS 'What the member may do here; decides the scopes of a session.';
COMMENT ON COLUMN tenant_members.invited_by IS 'Who invited the member.';
COMMENT ON COLUMN tenant_members.joined_at IS 'When the membership began.';
COMMENT ON COLUMN tenant_members.updated_at IS 'When the row last changed; set by a trigger.';

CREATE TABLE tenant_invitations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    email text NOT NULL CHECK (email LIKE '%_@_%'),
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'accepted', 'revoked', 'expired')),
    invited_by text REFERENCES "user" (id) ON DELETE SET NULL,
    expires_at timestamptz NOT NULL,
    accepted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((status = 'accepted') = (accepted_at IS NOT NULL))
);

COMMENT ON TABLE tenant_invitations IS
    'Invitations to join a tenant, sent by e-mail.';
COMMENT ON COLUMN tenant_invitations.id IS 'Identity of the row.';
COMMENT ON COLUMN tenant_invitations.tenant_id IS
    'The tenant that owns the row; the system tenant for what concerns all.';
COMMENT ON COLUMN tenant_invitations.email IS 'Address of the person invited.';
COMMENT ON COLUMN tenant_invitations.role IS 'Role that the member will have.';
COMMENT ON COLUMN tenant_invitations.token_hash IS 'SHA-256 of the token in the link.';
COMMENT ON COLUMN tenant_invitations.status IS 'Where the invitation stands.';
COMMENT ON COLUMN tenant_invitations.invited_by IS 'Who sent it.';
COMMENT ON COLUMN tenant_invitations.expires_at IS 'From then on the link is refused.';
COMMENT ON COLUMN tenant_invitations.accepted_at IS 'When it was accepted.';
COMMENT ON COLUMN tenant_invitations.created_at IS 'When the row was made.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE tenant_invitations;
DROP TABLE tenant_members;

RESET ROLE;
