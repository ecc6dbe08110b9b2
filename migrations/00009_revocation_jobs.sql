-- Revoking many certificates by one order. Programs from before this migration go on working beside it: they see no jobs, and the
-- revocations that a job makes are like all others.

-- +goose Up

-- Working table: orders to revoke many certificates, and how far each has come. What was ordered never changes: the service may update
-- nothing but the progress. Which certificates it is about stands in revocation_lots, frozen when it was ordered: certificates issued
-- later are not among them, and whoever approves knows by the digest exactly what is approved.
CREATE TABLE revocation_jobs (
    id              uuid PRIMARY KEY,
    namespace       text NOT NULL,             -- of who ordered it: it revokes nothing outside, and nobody outside sees it
    actor           jsonb NOT NULL,            -- who ordered it
    person          text NOT NULL,
    selection       jsonb NOT NULL,            -- as it was asked for, for people
    reason          smallint NOT NULL CHECK (reason IN (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)), -- RFC 5280, section 5.3.1
    comment         text NOT NULL,
    invalidity_date timestamptz,
    asked_at        timestamptz NOT NULL,
    expires_at      timestamptz NOT NULL,      -- without its approvals it is void from then on
    needs           integer NOT NULL CHECK (needs >= 0),  -- approvals of persons other than who ordered it
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32), -- of the lots
    lots            integer NOT NULL,
    found           integer NOT NULL,          -- certificates that the selection met
    total           integer NOT NULL,          -- of these in the lots; the others had nothing left to be done
    event_id        uuid NOT NULL,             -- of the revocation.ordered leaf

    approved_at     timestamptz,               -- null: it waits
    next_lot        integer NOT NULL DEFAULT 0,
    revoked         integer NOT NULL DEFAULT 0,
    already         integer NOT NULL DEFAULT 0, -- revoked before, by the time they were ordered or reached
    expired         integer NOT NULL DEFAULT 0,
    refused         integer NOT NULL DEFAULT 0, -- by their profile: no hold
    outcome         text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'finished', 'cancelled', 'rejected')),
    closed_at       timestamptz,
    fence           bigint NOT NULL DEFAULT 0,
    holder_name     text NOT NULL DEFAULT '',
    holder_run      text NOT NULL DEFAULT '',
    lease_until     timestamptz NOT NULL DEFAULT '-infinity'
);
CREATE INDEX revocation_jobs_open ON revocation_jobs (approved_at) WHERE outcome = '' AND approved_at IS NOT NULL;
CREATE INDEX revocation_jobs_namespace ON revocation_jobs (namespace, id DESC);

-- Facts: the certificates of a job, some hundred to a lot, in order of issuer and serial. A lot is revoked in one transaction.
CREATE TABLE revocation_lots (
    job     uuid NOT NULL,
    lot     integer NOT NULL CHECK (lot >= 0),
    issuers text[] NOT NULL,
    serials bytea[] NOT NULL CHECK (cardinality(serials) = cardinality(issuers)),
    PRIMARY KEY (job, lot)
);

-- Facts: what persons say to a job that needs approval, each once. The digest is that of the lots that were looked at.
CREATE TABLE revocation_votes (
    job        uuid NOT NULL,
    person     text NOT NULL CHECK (person <> ''),
    approves   boolean NOT NULL,
    digest     bytea NOT NULL,
    actor_id   text NOT NULL,
    actor_name text NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    event_id   uuid NOT NULL,
    PRIMARY KEY (job, person)
);

-- +goose StatementBegin
CREATE FUNCTION refuse_undoing_revocation() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.next_lot < OLD.next_lot OR NEW.fence < OLD.fence OR OLD.outcome <> '' THEN
        RAISE EXCEPTION 'the progress of revocation job % only rises, and ends once', OLD.id USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER progress_rises BEFORE UPDATE ON revocation_jobs FOR EACH ROW EXECUTE FUNCTION refuse_undoing_revocation();

GRANT SELECT, INSERT ON revocation_lots, revocation_votes TO chancery_service;
GRANT SELECT, INSERT, UPDATE (approved_at, next_lot, revoked, already, expired, refused, outcome, closed_at, fence, holder_name, holder_run,
    lease_until) ON revocation_jobs TO chancery_service;

CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON revocation_lots FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON revocation_lots EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON revocation_votes FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON revocation_votes EXECUTE FUNCTION refuse_change();
