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
-- replaces audit_leaves_seldom: one of this name was begun here and not finished
DROP INDEX CONCURRENTLY IF EXISTS audit_leaves_seldom;
CREATE INDEX CONCURRENTLY audit_leaves_seldom ON audit_leaves (kind, id)
    WHERE kind NOT IN ('certificate.intended', 'certificate.issued', 'key.signed');

-- Private texts of events: who a person is, and what persons wrote. Leaves hold their salted digests alone, so that the owner can erase a text
-- with its salt without touching the log. Nobody changes one.
CREATE TABLE IF NOT EXISTS audit_private (
    event_id uuid NOT NULL,
    field    text NOT NULL CHECK (field <> ''),
    salt     bytea NOT NULL CHECK (octet_length(salt) = 16),
    value    text NOT NULL,
    PRIMARY KEY (event_id, field)
);
CREATE INDEX IF NOT EXISTS audit_private_value ON audit_private USING hash (value);
GRANT SELECT, INSERT ON audit_private TO chancery_service;
GRANT SELECT ON audit_private TO chancery_auditor;
CREATE OR REPLACE TRIGGER facts_stay BEFORE UPDATE ON audit_private FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE OR REPLACE TRIGGER facts_stay_whole BEFORE TRUNCATE ON audit_private EXECUTE FUNCTION refuse_change();

-- A leaf comes with its private texts behind an octet 0, which stands in no leaf. They are parted here, so that no statement that adds leaves
-- can keep the one and lose the other.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION part_private() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    cut integer := position('\x00'::bytea IN NEW.leaf);
BEGIN
    INSERT INTO public.audit_private (event_id, field, salt, value)
    SELECT NEW.id, split_part(line, ' ', 1), decode(split_part(line, ' ', 2), 'hex'), convert_from(decode(split_part(line, ' ', 3), 'hex'), 'UTF8')
    FROM regexp_split_to_table(convert_from(substring(NEW.leaf FROM cut + 1), 'UTF8'), '\n') AS line;
    NEW.leaf := substring(NEW.leaf FROM 1 FOR cut - 1);
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER private_is_parted BEFORE INSERT ON audit_leaves
    FOR EACH ROW WHEN (position('\x00'::bytea IN NEW.leaf) > 0) EXECUTE FUNCTION part_private();
