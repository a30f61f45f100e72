-- What the deletion of old rows did, run by run.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE TABLE retention_runs (
    id uuid PRIMARY KEY,
    instance text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    touched_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    deleted_rows bigint NOT NULL DEFAULT 0 CHECK (deleted_rows >= 0),
    dropped_partitions integer NOT NULL DEFAULT 0 CHECK (dropped_partitions >= 0),
    archived_rows bigint NOT NULL DEFAULT 0 CHECK (archived_rows >= 0),
    archived_bytes bigint NOT NULL DEFAULT 0 CHECK (archived_bytes >= 0),
    details jsonb NOT NULL DEFAULT '{}'
);

COMMENT ON TABLE retention_runs IS 'Runs of the deletion of old rows; those of the last 400 days.';
COMMENT ON COLUMN retention_runs.id IS 'Identity of the run.';
COMMENT ON COLUMN retention_runs.instance IS 'Name of the proxy instance, or of the command, that ran.';
COMMENT ON COLUMN retention_runs.started_at IS 'When it began.';
COMMENT ON COLUMN retention_runs.touched_at IS 'When it last did something; a run that is silent for long has died.';
COMMENT ON COLUMN retention_runs.finished_at IS 'When it ended; null while it is under way, and for one that died.';
COMMENT ON COLUMN retention_runs.deleted_rows IS 'Rows that are gone, those of whole partitions included.';
COMMENT ON COLUMN retention_runs.dropped_partitions IS 'Partitions that were dropped whole.';
COMMENT ON COLUMN retention_runs.archived_rows IS 'Rows that were written to the archive before.';
COMMENT ON COLUMN retention_runs.archived_bytes IS 'Bytes of the files of the archive, compressed.';
COMMENT ON COLUMN retention_runs.details IS 'The same for each table, and why something was left.';

GRANT SELECT, INSERT, UPDATE, DELETE ON retention_runs TO mcp_manager_admin;

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP TABLE retention_runs;

RESET ROLE;
