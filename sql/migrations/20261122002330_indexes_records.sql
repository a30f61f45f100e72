-- Indexes of the audit trail and of events, for investigations.

-- migrate:up
SET LOCAL ROLE mcp_manager_owner;

CREATE INDEX idx_audit_logs_actor_time ON audit_logs (actor_id, ts DESC);
COMMENT ON INDEX idx_audit_logs_actor_time IS 'What someone did.';
CREATE INDEX idx_audit_logs_resource_time ON audit_logs (resource_type, resource_id, ts DESC);
COMMENT ON INDEX idx_audit_logs_resource_time IS 'What was done to something.';
CREATE INDEX idx_audit_logs_high_risk ON audit_logs (ts DESC) WHERE risk_level IN ('high', 'critical');
COMMENT ON INDEX idx_audit_logs_high_risk IS 'Dangerous actions, newest first.';
CREATE INDEX idx_audit_investigation_composite ON audit_logs (tenant_id, action, outcome, ts DESC);
COMMENT ON INDEX idx_audit_investigation_composite IS 'Actions of a kind that ended in a certain way.';
CREATE INDEX idx_error_logs_unresolved ON error_logs (tenant_id, ts DESC) WHERE resolved_at IS NULL;
COMMENT ON INDEX idx_error_logs_unresolved IS 'Errors that nobody has looked into.';
CREATE INDEX idx_error_logs_fingerprint_time ON error_logs (fingerprint, ts DESC);
COMMENT ON INDEX idx_error_logs_fingerprint_time IS 'Errors of the same cause.';
CREATE INDEX idx_security_events_address_time ON security_events (client_ip, ts DESC);
COMMENT ON INDEX idx_security_events_address_time IS 'What an address did.';
CREATE INDEX idx_security_events_severe ON security_events (ts DESC) WHERE severity IN ('high', 'critical');
COMMENT ON INDEX idx_security_events_severe IS 'Grave events, newest first.';
CREATE INDEX idx_system_events_type_time ON system_events (event_type, ts DESC);
COMMENT ON INDEX idx_system_events_type_time IS 'Events of a kind, newest first.';
CREATE INDEX idx_rate_limit_violations_subject_time ON rate_limit_violations (subject, ts DESC);
COMMENT ON INDEX idx_rate_limit_violations_subject_time IS 'How often someone ran into a limit.';

RESET ROLE;

-- migrate:down
SET LOCAL ROLE mcp_manager_owner;

DROP INDEX idx_rate_limit_violations_subject_time;
DROP INDEX idx_system_events_type_time;
DROP INDEX idx_security_events_severe;
DROP INDEX idx_security_events_address_time;
DROP INDEX idx_error_logs_fingerprint_time;
DROP INDEX idx_error_logs_unresolved;
DROP INDEX idx_audit_investigation_composite;
DROP INDEX idx_audit_logs_high_risk;
DROP INDEX idx_audit_logs_resource_time;
DROP INDEX idx_audit_logs_actor_time;

RESET ROLE;
