-- Reading the audit log: a role for auditors, who read and do nothing else, and what a search needs. Programs from before this migration go on
-- working beside it.

-- +goose Up

-- Roles belong to the whole cluster: another database's migration may have made this one, or be making it now.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chancery_auditor') THEN
        CREATE ROLE chancery_auditor NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
-- +goose StatementEnd

-- Verification reads the log, and holds the rows that events speak of against it. Neither tokens nor requests are among them.
GRANT USAGE ON SCHEMA public TO chancery_auditor;
GRANT SELECT ON audit_leaves, audit_sequence, audit_subtrees, audit_checkpoints, audit_cosignatures, audit_keys, audit_unsequenced, audit_backlog,
    certificates, orphans, revocations, crls, archives, goose_db_version TO chancery_auditor;
