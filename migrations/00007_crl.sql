-- Revocations that replicas follow, delta CRLs, and superseded CRLs that give up their octets. Programs from before this migration go on
-- working beside it: they make complete CRLs for everything that is pending.

-- +goose Up

-- The transaction that wrote an entry. A reader who has seen all transactions up to one that is the oldest still open goes on from
-- there, and misses none that commits late. Entries of before have none, and are read by whoever reads everything.
ALTER TABLE revocations ADD COLUMN xact xid8;
ALTER TABLE revocations ALTER COLUMN xact SET DEFAULT pg_current_xact_id();
CREATE INDEX revocations_xact ON revocations (xact) WHERE xact IS NOT NULL;
CREATE INDEX revocations_scope_xact ON revocations (issuer, crl_scope, xact) WHERE xact IS NOT NULL;

-- A list of a million entries is read in the order of serial numbers, which is not that of the table: all that it needs stands in the index.
CREATE INDEX revocations_listed ON revocations (issuer, crl_scope, serial, sequence DESC) INCLUDE (at, reason, invalidity_date, not_after);
-- replaces revocations_scope: the index above begins with the same columns.
DROP INDEX revocations_scope;

-- Whoever writes a revocation wakes those who follow. Postgres delivers one notification for each transaction, at its commit.
-- +goose StatementBegin
CREATE FUNCTION announce_revocations() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pg_notify('chancery_revocations', '');
    RETURN NULL;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER announced AFTER INSERT ON revocations FOR EACH STATEMENT EXECUTE FUNCTION announce_revocations();

-- Facts: signed delta CRLs. They share the numbers of their scope's complete CRLs. The current one has the highest number, as long as
-- its base is the current complete CRL.
CREATE TABLE crl_deltas (
    issuer      text NOT NULL,
    scope       text NOT NULL,
    number      numeric(48, 0) NOT NULL CHECK (number > base_number),
    base_number numeric(48, 0) NOT NULL CHECK (base_number > 0),
    der         bytea NOT NULL,
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL,
    entries     integer NOT NULL,
    event_id    uuid NOT NULL,
    PRIMARY KEY (issuer, scope, number)
);
GRANT SELECT, INSERT ON crl_deltas TO chancery_service;
CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON crl_deltas FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON crl_deltas EXECUTE FUNCTION refuse_change();

-- What is pending has been so since a moment, and may be on a delta CRL. Only a complete CRL ends it.
ALTER TABLE crl_pending
    ADD COLUMN at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN on_delta numeric(48, 0);
GRANT UPDATE (on_delta) ON crl_pending TO chancery_service;
ALTER TABLE crl_scopes
    ADD COLUMN delta_number numeric(48, 0),
    ADD COLUMN delta_this_update timestamptz;
GRANT UPDATE (delta_number, delta_this_update) ON crl_scopes TO chancery_service;

-- A CRL of a million entries has some 50 MB, and may be superseded a second later. Its row stays, with the digest of what it held. It is
-- not compressed either: serial numbers hardly shrink, and trying takes longer than writing.
ALTER TABLE crls ADD COLUMN der_sha256 bytea CHECK (octet_length(der_sha256) = 32);
ALTER TABLE crls ALTER COLUMN der SET STORAGE EXTERNAL;
ALTER TABLE crls SET (toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000);

-- A CRL's row never changes, but for giving up its octets for their digest when two later CRLs of its scope are there.
-- +goose StatementBegin
CREATE FUNCTION refuse_crl_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.der <> '' AND NEW.der = '' AND NEW.der_sha256 = sha256(OLD.der)
        AND (OLD.der_sha256 IS NULL OR OLD.der_sha256 = NEW.der_sha256)
        AND (NEW.issuer, NEW.scope, NEW.number, NEW.this_update, NEW.next_update, NEW.entries, NEW.event_id)
            = (OLD.issuer, OLD.scope, OLD.number, OLD.this_update, OLD.next_update, OLD.entries, OLD.event_id)
        AND (SELECT count(*) FROM public.crls AS c WHERE c.issuer = OLD.issuer AND c.scope = OLD.scope AND c.number > OLD.number) >= 2
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'crls holds facts: rows are added and never changed or removed' USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON crls FOR EACH ROW EXECUTE FUNCTION refuse_crl_change();

-- prune_crls takes their octets from the superseded CRLs of a scope that have more of them than is worth keeping. It returns how many.
-- +goose StatementBegin
CREATE FUNCTION prune_crls(of_issuer text, of_scope text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pruned integer;
BEGIN
    UPDATE public.crls AS c SET der = '', der_sha256 = sha256(c.der)
    WHERE c.issuer = of_issuer AND c.scope = of_scope AND octet_length(c.der) > 65536
        AND c.number IN (SELECT l.number FROM public.crls AS l WHERE l.issuer = of_issuer AND l.scope = of_scope
            ORDER BY l.number DESC OFFSET 2 LIMIT 8);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION prune_crls(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_crls(text, text) TO chancery_service;
