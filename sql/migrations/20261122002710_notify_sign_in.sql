-- The same for users and sign-ins: a banned user and a closed session are refused at once. The tables may be the
-- front end's.

-- migrate:up
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON "user"
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at', 'image', 'two_factor_enabled');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON "user"
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();
CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON session
    FOR EACH ROW EXECUTE FUNCTION notify_change('updated_at', 'ip_address', 'user_agent');
CREATE TRIGGER notify_truncate AFTER TRUNCATE ON session
    FOR EACH STATEMENT EXECUTE FUNCTION notify_truncate();

-- migrate:down
DROP TRIGGER notify_truncate ON session;
DROP TRIGGER notify_change ON session;
DROP TRIGGER notify_truncate ON "user";
DROP TRIGGER notify_change ON "user";
