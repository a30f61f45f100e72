-- Flags that split those who have them into groups.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE feature_flags
    ADD COLUMN variants jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(variants) = 'object');

COMMENT ON COLUMN feature_flags.variants IS 'Name and weight of each variant, such as {"a": 1, "b": 3}; none when empty.';
COMMENT ON COLUMN feature_flags.rules IS
    'For whom it is on or off: [{"tenant", "user", "key", "on", "variant"}]; the first that fits decides.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

ALTER TABLE feature_flags DROP COLUMN variants;
COMMENT ON COLUMN feature_flags.rules IS 'Conditions and variants; the first that fits decides.';

RESET ROLE;
