-- Windows that come back, and how long what runs may go on when one begins.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE maintenance_windows
    ADD COLUMN drain_s double precision NOT NULL DEFAULT 30 CHECK (drain_s >= 0),
    ADD COLUMN recurrence text CHECK (recurrence <> '');

COMMENT ON COLUMN maintenance_windows.drain_s IS
    'So long may what runs go on after the begin, in seconds; then it is ended.';
COMMENT ON COLUMN maintenance_windows.recurrence IS
    'When it comes back, such as Sun 02:00-04:00 Europe/Berlin, between starts_at and ends_at; null is once.';
COMMENT ON COLUMN maintenance_windows.starts_at IS 'Begin; of the whole series when it comes back.';
COMMENT ON COLUMN maintenance_windows.ends_at IS
    'End; what Retry-After points to when it is once. Of the whole series when it comes back.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE maintenance_windows DROP COLUMN recurrence, DROP COLUMN drain_s;
COMMENT ON COLUMN maintenance_windows.starts_at IS 'Begin.';
COMMENT ON COLUMN maintenance_windows.ends_at IS 'End; what Retry-After points to.';

RESET ROLE;
