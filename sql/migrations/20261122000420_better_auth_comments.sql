-- Says what the tables of Better-Auth hold, where the front end has not said it itself.

-- migrate:up
DO $$
DECLARE
    col record;
BEGIN
    FOR col IN SELECT c.oid AS relation, a.attname, a.attnum, words.text FROM (VALUES
        ('user', '', 'People who sign in.'),
        ('user', 'id', 'Identity of the user.'),
        ('user', 'name', 'Name shown.'),
        ('user', 'email', 'Address; unique.'),
        ('user', 'email_verified', 'Whether the address was confirmed.'),
        ('user', 'image', 'Picture shown.'),
        ('user', 'role', 'Role in the installation; decides the scopes of a session.'),
        ('user', 'banned', 'Whether the user may not sign in.'),
        ('user', 'ban_reason', 'Why not.'),
        ('user', 'ban_expires', 'Until when not; null is for ever.'),
        ('user', 'two_factor_enabled', 'Whether a second factor is asked for.'),
        ('user', 'tenant_id', 'Home tenant; null until the user joins one.'),
        ('session', '', 'Sign-ins that are in force.'),
        ('session', 'id', 'Identity of the session.'),
        ('session', 'expires_at', 'From then on it is refused.'),
        ('session', 'token', 'What the browser or client presents.'),
        ('session', 'ip_address', 'Address of the sign-in.'),
        ('session', 'user_agent', 'Program of the sign-in.'),
        ('session', 'user_id', 'Who signed in.'),
        ('session', 'impersonated_by', 'The administrator who acts as that user.'),
        ('account', '', 'Ways in which a user signs in.'),
        ('account', 'id', 'Identity of the account.'),
        ('account', 'account_id', 'Identity of the user at the provider.'),
        ('account', 'provider_id', 'The provider: github, google, credential.'),
        ('account', 'user_id', 'Whose it is.'),
        ('account', 'access_token', 'Access token of the provider.'),
        ('account', 'refresh_token', 'Refresh token of the provider.'),
        ('account', 'id_token', 'Identity token of the provider.'),
        ('account', 'access_token_expires_at', 'When the access token ends.'),
        ('account', 'refresh_token_expires_at', 'When the refresh token ends.'),
        ('account', 'scope', 'Scopes granted by the provider.'),
        ('account', 'password', 'Digest of the password, for provider credential.'),
        ('verification', '', 'Codes sent to confirm an address or a reset.'),
        ('verification', 'id', 'Identity of the code.'),
        ('verification', 'identifier', 'What is confirmed.'),
        ('verification', 'value', 'The code.'),
        ('verification', 'expires_at', 'From then on it is refused.'),
        ('two_factor_auth', '', 'Second factors.'),
        ('two_factor_auth', 'id', 'Identity of the factor.'),
        ('two_factor_auth', 'secret', 'Secret of the one-time codes, encrypted by the front end.'),
        ('two_factor_auth', 'backup_codes', 'Codes for the loss of the device, encrypted by the front end.'),
        ('two_factor_auth', 'user_id', 'Whose it is.'),
        ('user', 'created_at', 'When the row was made.'),
        ('user', 'updated_at', 'When the row last changed.'),
        ('session', 'created_at', 'When the row was made.'),
        ('session', 'updated_at', 'When the row last changed.'),
        ('account', 'created_at', 'When the row was made.'),
        ('account', 'updated_at', 'When the row last changed.'),
        ('verification', 'created_at', 'When the row was made.'),
        ('verification', 'updated_at', 'When the row last changed.')
    ) AS words (relation, attribute, text)
    JOIN pg_class c ON c.oid = to_regclass(format('public.%I', words.relation))
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = words.attribute
    WHERE words.attribute = '' OR a.attnum IS NOT NULL
    LOOP
        IF col.attnum IS NULL AND obj_description(col.relation, 'pg_class') IS NULL THEN
            EXECUTE format('COMMENT ON TABLE %s IS %L', col.relation::regclass, col.text || ' (Better-Auth)');
        ELSIF col_description(col.relation, col.attnum) IS NULL AND col.attnum IS NOT NULL THEN
            EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', col.relation::regclass, col.attname,
                           col.text || ' (Better-Auth)');
        END IF;
    END LOOP;
END
$$;

-- migrate:down
DO $$
DECLARE
    said record;
BEGIN
    FOR said IN
        SELECT d.objoid::regclass AS relation, a.attname
        FROM pg_description d
        LEFT JOIN pg_attribute a ON a.attrelid = d.objoid AND a.attnum = d.objsubid AND a.attnum > 0
        WHERE d.classoid = 'pg_class'::regclass AND d.description LIKE '% (Better-Auth)'
    LOOP
        IF said.attname IS NULL THEN
            EXECUTE format('COMMENT ON TABLE %s IS NULL', said.relation);
        ELSE
            EXECUTE format('COMMENT ON COLUMN %s.%I IS NULL', said.relation, said.attname);
        END IF;
    END LOOP;
END
$$;
