-- Who changed a setting: an operator on the command line is no user of the front end.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE system_configs ADD COLUMN changed_by text CHECK (changed_by <> '');

COMMENT ON TABLE system_configs IS
    'Settings that are changed at run time (docs/runtime-configuration.md). Rows of the system tenant are for everyone.';
COMMENT ON COLUMN system_configs.key IS 'Name of the setting as in the configuration file, unique in the tenant.';
COMMENT ON COLUMN system_configs.value IS 'Its value as in the configuration file; secrets do not belong here.';
COMMENT ON COLUMN system_configs.description IS 'Why it was changed, for people.';
COMMENT ON COLUMN system_configs.updated_by IS 'The user who changed it last, if it was one.';
COMMENT ON COLUMN system_configs.changed_by IS 'Who changed it last on the command line, as in audit_logs.actor_id.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE system_configs DROP COLUMN changed_by;
COMMENT ON TABLE system_configs IS 'Settings that are changed at run time.';
COMMENT ON COLUMN system_configs.key IS 'Name of the setting, unique in the tenant.';
COMMENT ON COLUMN system_configs.value IS 'Its value; secrets do not belong here.';
COMMENT ON COLUMN system_configs.description IS 'What it does.';
COMMENT ON COLUMN system_configs.updated_by IS 'Who changed it last.';

RESET ROLE;
