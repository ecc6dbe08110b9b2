-- Reading the audit log: a role for auditors, who read and do nothing else, and what a search needs. Programs from before this migration go on
-- working beside it.

-- +goose NO TRANSACTION
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

-- Searches for what happens seldom need not look at what every issuance says. Issuing does not write to this index. It is made beside whoever
-- is adding leaves; one that was not finished is made anew.
DROP INDEX CONCURRENTLY IF EXISTS audit_leaves_seldom;
CREATE INDEX CONCURRENTLY audit_leaves_seldom ON audit_leaves (kind, id)
    WHERE kind NOT IN ('certificate.intended', 'certificate.issued', 'key.signed');
