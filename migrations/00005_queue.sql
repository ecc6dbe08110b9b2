-- Namespaces as they are changed while the service runs, requests that wait for approval, and reservations. Programs from before this
-- migration go on working beside it: they decide by the namespaces of their configuration, and no request of theirs waits.

-- +goose Up

-- Facts: every version of every namespace. The latest one holds; of a namespace that was removed it says so.
CREATE TABLE namespaces (
    name       text NOT NULL CHECK (name <> ''),
    version    integer NOT NULL CHECK (version >= 1),
    source     text NOT NULL CHECK (source IN ('file', 'api')), -- a namespace of the configuration file is changed there alone
    removed    boolean NOT NULL,
    definition jsonb NOT NULL,
    actor      text NOT NULL,
    at         timestamptz NOT NULL,
    event_id   uuid NOT NULL,                  -- of the namespace.changed leaf
    PRIMARY KEY (name, version)
);

-- A caller's name for a request that waits leads to the request; one that is being signed, to its serial.
ALTER TABLE idempotency_keys
    ALTER COLUMN serial DROP NOT NULL,
    ADD COLUMN request_id uuid,
    ADD CONSTRAINT idempotency_keys_lead_somewhere CHECK (serial IS NOT NULL OR request_id IS NOT NULL);

-- Working table: what became of requests that need approval. Everything that the decision saw is in requests, but for the whole actor.
-- An intent claims the row by its serial, which its settlement takes out again; with a certificate under it the request has ended.
CREATE TABLE waiting_requests (
    request_id uuid PRIMARY KEY,
    namespace  text NOT NULL,
    profile    text NOT NULL,
    actor      jsonb NOT NULL,                 -- who asked, as the decision saw it
    subject    text NOT NULL,
    names      text[] NOT NULL,
    asked_at   timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    outcome    text NOT NULL DEFAULT '' CHECK (outcome IN ('', 'rejected', 'expired', 'refused')),
    why        text NOT NULL DEFAULT '',       -- for people
    closed_at  timestamptz,
    issuer     text,
    serial     bytea CHECK (octet_length(serial) = 20)
);
CREATE INDEX waiting_requests_open ON waiting_requests (expires_at) WHERE outcome = '' AND serial IS NULL;
CREATE INDEX waiting_requests_serial ON waiting_requests (serial) WHERE serial IS NOT NULL;
CREATE INDEX waiting_requests_namespace ON waiting_requests (namespace, request_id DESC);

-- Facts: who approved or rejected what. The binding names the exact request, profile and policies that were looked at.
CREATE TABLE approvals (
    request_id uuid NOT NULL,
    binding    text NOT NULL,
    person     text NOT NULL CHECK (person <> ''),
    approved   boolean NOT NULL,
    actor      text NOT NULL,
    groups     text[] NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    event_id   uuid NOT NULL,
    PRIMARY KEY (request_id, binding, person, approved)
);

-- Working table: how much of what is bounded has been taken, in parts of the window. What lies before every window is deleted.
CREATE TABLE reservations (
    kind   text NOT NULL,
    scope  text NOT NULL,
    key    text NOT NULL,
    span   bigint NOT NULL,                    -- of the window, in seconds; 0: for ever
    part   bigint NOT NULL,                    -- which part of time, counted from 1970
    taken  bigint NOT NULL,
    until  timestamptz NOT NULL,               -- from when on no window holds it
    holder bytea,                              -- of a key: the serial that took it, whose settlement gives it back
    PRIMARY KEY (kind, scope, key, span, part)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX reservations_until ON reservations (until);
CREATE INDEX reservations_holder ON reservations (holder) WHERE holder IS NOT NULL;

-- admit_intents lets those intents through that have more conditions than most: a request that must still be waiting (waits[i] is its
-- ID, or null), and reservations (r_*, each with the serial of its intent). It takes one after the other, so that each is judged by what
-- those before it have really taken, and gives for each: 0, let through; n, the n-th of its reservations has no room, with the seconds
-- until some is free, or 0 for never; -1, its idempotency key is taken; -2, its request waits no more. Of what is not let through nothing
-- stays. An intent for a compromised key is passed over. The locks make transactions that reserve the same take turns until their commit.
--
-- A window is counted in sixty parts, and each that it touches counts whole: never is more taken in any window than its limit.
-- +goose StatementBegin
CREATE FUNCTION admit_intents(serials bytea[], issuers text[], spkis bytea[], actors text[], keys text[], bodies bytea[], waits uuid[],
    r_serials bytea[], r_kinds text[], r_scopes text[], r_keys text[], r_limits bigint[], r_spans bigint[])
    RETURNS TABLE (item bytea, outcome integer, retry bigint)
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
DECLARE
    lock_key bigint;
    clock    bigint;
    i        record;
    r        record;
    held     bigint;
    oldest   bigint;
BEGIN
    FOR lock_key IN
        SELECT DISTINCT hashtextextended(concat_ws(E'\x01', l.kind, l.scope, l.key, l.span), 5)
        FROM unnest(r_kinds, r_scopes, r_keys, r_spans) AS l (kind, scope, key, span)
        ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(lock_key);
    END LOOP;
    clock := floor(extract(epoch FROM clock_timestamp()));
    FOR i IN
        SELECT * FROM unnest(serials, issuers, spkis, actors, keys, bodies, waits) AS u (serial, issuer, spki, actor, key, body, waiting)
        ORDER BY u.actor, u.key, u.serial
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM compromised_keys AS k WHERE k.spki_sha256 = i.spki);
        item := i.serial;
        outcome := 0;
        retry := 0;
        IF i.key <> '' THEN
            INSERT INTO idempotency_keys AS k (actor, key, body, issuer, serial) VALUES (i.actor, i.key, i.body, i.issuer, i.serial)
            ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO NOTHING;
            IF NOT FOUND THEN
                outcome := -1;
            END IF;
        END IF;
        IF outcome = 0 AND i.waiting IS NOT NULL THEN
            UPDATE waiting_requests AS w SET issuer = i.issuer, serial = i.serial
            WHERE w.request_id = i.waiting AND w.outcome = '' AND w.serial IS NULL;
            IF NOT FOUND THEN
                outcome := -2;
            END IF;
        END IF;
        IF outcome = 0 THEN
            FOR r IN
                SELECT u.*, row_number() OVER (ORDER BY u.n) AS place, greatest(1, (u.span + 59) / 60) AS length
                FROM unnest(r_serials, r_kinds, r_scopes, r_keys, r_limits, r_spans) WITH ORDINALITY AS u (serial, kind, scope, key, most, span, n)
                WHERE u.serial = i.serial
                ORDER BY u.n
            LOOP
                SELECT coalesce(sum(t.taken), 0), min(t.part) INTO held, oldest
                FROM reservations AS t
                WHERE t.kind = r.kind AND t.scope = r.scope AND t.key = r.key AND t.span = r.span
                    AND (r.span = 0 OR t.part >= (clock - r.span) / r.length) AND t.taken > 0;
                IF r.kind = 'key' AND r.key = encode(i.spki, 'hex') THEN -- certified before anybody reserved it
                    held := greatest(held, (SELECT count(*) FROM certificates AS c WHERE c.spki_sha256 = i.spki AND c.kind = 'final'));
                END IF;
                IF held >= r.most THEN
                    outcome := r.place;
                    retry := CASE WHEN r.span = 0 OR r.most = 0 THEN 0 ELSE greatest(1, (oldest + 1) * r.length + r.span - clock) END;
                    EXIT;
                END IF;
            END LOOP;
        END IF;
        IF outcome = 0 THEN
            FOR r IN
                SELECT u.*, greatest(1, (u.span + 59) / 60) AS length
                FROM unnest(r_serials, r_kinds, r_scopes, r_keys, r_spans) AS u (serial, kind, scope, key, span)
                WHERE u.serial = i.serial
            LOOP
                INSERT INTO reservations AS t (kind, scope, key, span, part, taken, until, holder)
                VALUES (r.kind, r.scope, r.key, r.span, CASE WHEN r.span = 0 THEN 0 ELSE clock / r.length END, 1,
                    CASE WHEN r.span = 0 THEN 'infinity' ELSE to_timestamp(clock + r.length + r.span) END,
                    CASE WHEN r.kind = 'key' THEN i.serial END)
                ON CONFLICT ON CONSTRAINT reservations_pkey DO UPDATE SET taken = t.taken + 1, holder = excluded.holder;
            END LOOP;
        ELSE
            IF i.key <> '' AND outcome <> -1 THEN
                DELETE FROM idempotency_keys AS k WHERE k.actor = i.actor AND k.key = i.key AND k.serial = i.serial;
            END IF;
            IF i.waiting IS NOT NULL AND outcome > 0 THEN
                UPDATE waiting_requests AS w SET issuer = NULL, serial = NULL WHERE w.request_id = i.waiting;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;
-- +goose StatementEnd

GRANT SELECT, INSERT ON namespaces, approvals TO chancery_service;
GRANT SELECT, INSERT, UPDATE (outcome, why, closed_at, issuer, serial) ON waiting_requests TO chancery_service;
GRANT SELECT, INSERT, DELETE, UPDATE (taken, holder) ON reservations TO chancery_service;
REVOKE ALL ON FUNCTION admit_intents(bytea[], text[], bytea[], text[], text[], bytea[], uuid[], bytea[], text[], text[], text[], bigint[], bigint[])
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION admit_intents(bytea[], text[], bytea[], text[], text[], bytea[], uuid[], bytea[], text[], text[], text[], bigint[], bigint[])
    TO chancery_service;

CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON namespaces FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON namespaces EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON approvals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON approvals EXECUTE FUNCTION refuse_change();
