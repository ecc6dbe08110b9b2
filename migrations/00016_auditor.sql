-- Who reads everything and can change nothing: chancery_auditor, for verification and reconciliation by somebody who is neither the service nor
-- the owner. What lets somebody in (API tokens, sessions) it cannot read, not even as digests.

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

-- The service may work as the auditor, to read a thing without being able to write. Where whoever migrates may not grant that, an administrator
-- has to.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT pg_has_role('chancery_service', 'chancery_auditor', 'MEMBER') THEN
        GRANT chancery_auditor TO chancery_service;
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE NOTICE 'the role % cannot make chancery_service a member of chancery_auditor', current_user;
    WHEN unique_violation THEN -- another database's migration did it at the same moment
        NULL;
END
$$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA public TO chancery_auditor;
GRANT SELECT ON goose_db_version, schema_compatibility, authorities, requests, certificates, orphans, imported_certificates, revocations,
    compromised_keys, crl_intents, crls, crl_deltas, audit_leaves, issued, intents, crl_scopes, crl_pending, namespaces, approvals,
    waiting_requests, policy_sets, policy_proposals, policy_votes, policy_activations, revocation_jobs, revocation_lots, revocation_votes,
    replicas, leases, archives, archived_keys, approver_keys, approver_key_ends, approval_evidence, orders, order_votes, order_uses
    TO chancery_auditor;

-- The log itself: its sequence, its tree, its checkpoints, under whichever names they have.
-- +goose StatementBegin
DO $$
DECLARE
    part text;
BEGIN
    FOR part IN
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname LIKE 'audit\_%'
    LOOP
        EXECUTE format('GRANT SELECT ON %I TO chancery_auditor', part);
    END LOOP;
END
$$;
-- +goose StatementEnd
