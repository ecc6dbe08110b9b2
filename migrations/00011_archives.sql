-- Archives: months whose certificates have all ended leave the database, into files. Requests are divided into months as certificates are,
-- so that a month of both goes at once, as whole tables. Programs from before this migration go on working beside it: names, columns and
-- rights are what they were, and the function that they call for partitions makes those of requests as well.

-- +goose Up

-- Facts: the months that were archived. Only archive_month adds to it.
CREATE TABLE archives (
    month               date PRIMARY KEY CHECK (month = date_trunc('month', month)),
    serials_from        bytea NOT NULL,        -- [from, until) are the serials of the month
    serials_until       bytea NOT NULL,
    certificates        bigint NOT NULL,       -- precertificates counted too
    requests            bigint NOT NULL,
    certificates_digest bytea NOT NULL,        -- see archive_month
    requests_digest     bytea NOT NULL,
    last_not_after      timestamptz,           -- null: there were none
    file                text NOT NULL CHECK (file <> ''),
    octets              bigint NOT NULL,
    sha256              bytea NOT NULL CHECK (octet_length(sha256) = 32), -- of the file as it is
    actor               text NOT NULL,
    at                  timestamptz NOT NULL,
    event_id            uuid NOT NULL          -- of the archive.made leaf
);

-- Facts: the keys of archived certificates, as far as rules about earlier uses of a key ask: one row for each month and list of names.
-- Only archive_month adds to it.
CREATE TABLE archived_keys (
    spki_sha256  bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    namespace    text NOT NULL,
    names        text[] NOT NULL,
    serial       bytea NOT NULL,               -- of the newest
    not_after    timestamptz NOT NULL,         -- of the newest
    certificates bigint NOT NULL,              -- how many, precertificates not counted
    month        date NOT NULL
);
CREATE INDEX archived_keys_spki ON archived_keys (spki_sha256);

-- request_bound is the smallest identifier of a request of a moment: identifiers begin with 48 bits of Unix milliseconds (RFC 9562,
-- section 5.7).
-- +goose StatementBegin
CREATE FUNCTION request_bound(moment timestamptz) RETURNS uuid
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
RETURN (lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid;
-- +goose StatementEnd

-- The requests that are here move into the months of their identifiers. Nobody sees the table without them, or without its name: writers
-- wait until all are moved.
-- replaces requests: a table of the same name, columns, rights and triggers.
ALTER TABLE requests RENAME TO requests_undivided;
ALTER INDEX requests_pkey RENAME TO requests_undivided_pkey;
CREATE TABLE requests (LIKE requests_undivided INCLUDING ALL) PARTITION BY RANGE (id);
GRANT SELECT, INSERT ON requests TO chancery_service;
CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON requests FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON requests EXECUTE FUNCTION refuse_change();

-- make_month_partition makes a month's partition of a table, where it is missing. A partition is made by itself and then attached: that,
-- unlike CREATE TABLE ... PARTITION OF, leaves readers and writers of the other months alone. The catalogue is asked by a query, because
-- to_regclass answers from a cache that waiting for the lock does not refresh.
-- +goose StatementBegin
CREATE FUNCTION make_month_partition(divided text, month timestamp, low text, high text) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition text := divided || '_' || to_char(month, 'YYYY_MM');
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = partition) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('certificates partitions', 0));
    IF EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = partition) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', partition, divided);
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', divided, partition, low, high);
END
$$;
-- +goose StatementEnd

-- ensure_certificate_partitions makes the partitions from the month before a moment to the third month after it, where they are
-- missing, of certificates and of requests, and returns the span that they cover. A month that was archived does not come back: that
-- somebody wants to issue in it means that a clock is wrong.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_certificate_partitions(moment timestamptz, OUT covered_from timestamptz, OUT covered_until timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this  timestamp := date_trunc('month', moment AT TIME ZONE 'UTC');
    first timestamp;
    low   timestamptz;
    high  timestamptz;
BEGIN
    covered_from := (this - interval '1 month') AT TIME ZONE 'UTC';
    FOR i IN -1..3 LOOP
        first := this + make_interval(months => i);
        low := first AT TIME ZONE 'UTC';
        high := (first + interval '1 month') AT TIME ZONE 'UTC';
        IF EXISTS (SELECT FROM public.archives AS a WHERE a.month = first::date) THEN
            IF i = 0 THEN
                RAISE EXCEPTION 'the month of % is archived: is the clock right?', moment USING ERRCODE = 'object_not_in_prerequisite_state';
            END IF;
            EXIT WHEN i > 0;
            covered_from := high;
            CONTINUE;
        END IF;
        PERFORM public.make_month_partition('certificates', first, public.serial_bound(low)::text, public.serial_bound(high)::text);
        PERFORM public.make_month_partition('requests', first, public.request_bound(low)::text, public.request_bound(high)::text);
        covered_until := high;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    months timestamp[] := ARRAY (
        SELECT DISTINCT date_trunc('month', to_timestamp(('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC')
        FROM requests_undivided);
    month  timestamp;
BEGIN
    FOREACH month IN ARRAY months LOOP
        PERFORM make_month_partition('requests', month, request_bound(month AT TIME ZONE 'UTC')::text,
            request_bound((month + interval '1 month') AT TIME ZONE 'UTC')::text);
    END LOOP;
END
$$;
-- +goose StatementEnd
INSERT INTO requests SELECT * FROM requests_undivided;
DROP TABLE requests_undivided;
SELECT ensure_certificate_partitions(now());

-- archive_obstacle says why a month cannot be archived now, or nothing. Every certificate must have ended before a moment; the revoked ones
-- must have left their CRLs, which each does only after one that was made after its end (RFC 5280, section 3.3); nothing may be under way;
-- and what a request led to is archived with it or after it, so that history reads the same before and afterwards.
-- +goose StatementBegin
CREATE FUNCTION archive_obstacle(month date, ended_before timestamptz) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    low          timestamptz := month::timestamp AT TIME ZONE 'UTC';
    high         timestamptz := (month::timestamp + interval '1 month') AT TIME ZONE 'UTC';
    serial_low   bytea := public.serial_bound(low);
    serial_high  bytea := public.serial_bound(high);
    request_low  uuid := public.request_bound(low);
    request_high uuid := public.request_bound(high);
    why          text;
BEGIN
    IF month <> date_trunc('month', month) OR high > (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month') AT TIME ZONE 'UTC' THEN
        RETURN 'the month is not long enough over';
    END IF;
    IF NOT EXISTS (SELECT FROM public.certificates AS c WHERE c.serial >= serial_low AND c.serial < serial_high)
        AND NOT EXISTS (SELECT FROM public.requests AS r WHERE r.id >= request_low AND r.id < request_high)
    THEN
        RETURN 'there is nothing in it';
    END IF;
    IF ended_before > now() THEN
        RETURN 'certificates must have ended';
    END IF;
    IF EXISTS (SELECT FROM public.intents AS i WHERE i.serial >= serial_low AND i.serial < serial_high) THEN
        RETURN 'an intent is open';
    END IF;
    IF EXISTS (SELECT FROM public.waiting_requests AS w WHERE w.outcome = '' AND w.request_id >= request_low AND w.request_id < request_high
        AND NOT EXISTS (SELECT FROM public.certificates AS c WHERE c.serial = w.serial AND c.issuer = w.issuer AND c.kind = 'final')
        AND NOT EXISTS (SELECT FROM public.archives AS a WHERE w.serial >= a.serials_from AND w.serial < a.serials_until))
    THEN
        RETURN 'a request waits for approval';
    END IF;
    IF EXISTS (SELECT FROM public.certificates AS c WHERE c.serial >= serial_low AND c.serial < serial_high AND c.not_after >= ended_before) THEN
        RETURN 'a certificate has not ended';
    END IF;
    IF EXISTS (SELECT FROM public.orphans AS o WHERE o.serial >= serial_low AND o.serial < serial_high AND o.not_after >= ended_before) THEN
        RETURN 'a certificate that was possibly signed has not ended';
    END IF;
    SELECT format('a revoked certificate is perhaps still on the CRL %s/%s', g.issuer, g.crl_scope) INTO why
    FROM (
        SELECT r.issuer, r.crl_scope, max(r.not_after) AS ended
        FROM public.authorities AS a JOIN public.revocations AS r ON r.issuer = a.name
        WHERE r.serial >= serial_low AND r.serial < serial_high
        GROUP BY r.issuer, r.crl_scope
    ) AS g
    WHERE EXISTS (SELECT FROM public.crl_pending AS p
            WHERE p.issuer = g.issuer AND p.scope = g.crl_scope AND p.serial >= serial_low AND p.serial < serial_high)
        OR coalesce((SELECT l.this_update FROM public.crls AS l WHERE l.issuer = g.issuer AND l.scope = g.crl_scope
            ORDER BY l.number DESC OFFSET 1 LIMIT 1), '-infinity') <= g.ended
    ORDER BY 1 LIMIT 1;
    IF why IS NOT NULL THEN
        RETURN why;
    END IF;
    IF EXISTS (
        SELECT FROM public.certificates AS c
        WHERE c.serial >= serial_low AND c.serial < serial_high AND (c.request_id < request_low OR c.request_id >= request_high)
            AND EXISTS (SELECT FROM public.requests AS r WHERE r.id = c.request_id))
    THEN
        RETURN 'a certificate was requested in another month, which comes first';
    END IF;
    RETURN '';
END
$$;
-- +goose StatementEnd

-- archive_month takes a month out of the database once a file holds it, and records that it did: all of it or nothing. It believes nobody:
-- it looks for obstacles by itself, and compares what the file was read to hold with what it is about to drop. The digest of rows is the
-- exclusive or of the SHA-256 of each as JSON, so that it does not depend on their order.
--
-- The month's tables are closed to writers, then read, and only at the end is the lock taken that stops all use of certificates, for the
-- moment of a change in the catalogue. When a long query does not let go of it in time, everything is as before. (DETACH CONCURRENTLY
-- needs no such lock, and runs neither in a function nor in a transaction: a crash could then leave a month that is neither here nor
-- recorded as archived.)
-- +goose StatementBegin
CREATE FUNCTION archive_month(month date, ended_before timestamptz, certificates bigint, certificates_digest bytea, requests bigint,
    requests_digest bytea, file text, octets bigint, sha256 bytea, actor text, event_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO' SET intervalstyle = 'iso_8601' SET bytea_output = 'hex' SET extra_float_digits = 1
    SET lock_timeout = '2s'
AS $$
#variable_conflict use_variable
DECLARE
    low        timestamptz := month::timestamp AT TIME ZONE 'UTC';
    high       timestamptz := (month::timestamp + interval '1 month') AT TIME ZONE 'UTC';
    suffix     text := to_char(month, '_YYYY_MM');
    obstacle   text;
    last_ended timestamptz;
    rows       bigint;
    digest     bit(256);
    zero       bit(256) := 0::bit(256);
BEGIN
    EXECUTE format('LOCK TABLE public.%I, public.%I IN SHARE MODE', 'certificates' || suffix, 'requests' || suffix);
    obstacle := public.archive_obstacle(month, ended_before);
    IF obstacle <> '' THEN
        RAISE EXCEPTION 'the month % cannot be archived: %', month, obstacle USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    EXECUTE format('SELECT count(*), max(not_after), bit_xor((''x'' || encode(sha256(convert_to(row_to_json(c)::text, ''UTF8'')), ''hex''))::bit(256))
        FROM public.%I AS c', 'certificates' || suffix) INTO rows, last_ended, digest;
    IF rows <> certificates OR coalesce(digest, zero) <> ('x' || encode(certificates_digest, 'hex'))::bit(256) THEN
        RAISE EXCEPTION 'the file % holds other certificates than the month %', file, month USING ERRCODE = 'data_exception';
    END IF;
    EXECUTE format('SELECT count(*), bit_xor((''x'' || encode(sha256(convert_to(row_to_json(r)::text, ''UTF8'')), ''hex''))::bit(256))
        FROM public.%I AS r', 'requests' || suffix) INTO rows, digest;
    IF rows <> requests OR coalesce(digest, zero) <> ('x' || encode(requests_digest, 'hex'))::bit(256) THEN
        RAISE EXCEPTION 'the file % holds other requests than the month %', file, month USING ERRCODE = 'data_exception';
    END IF;
    INSERT INTO public.archives (month, serials_from, serials_until, certificates, requests, certificates_digest, requests_digest,
        last_not_after, file, octets, sha256, actor, at, event_id)
    VALUES (month, public.serial_bound(low), public.serial_bound(high), certificates, requests, certificates_digest, requests_digest,
        last_ended, file, octets, sha256, actor, now(), event_id);
    EXECUTE format('INSERT INTO public.archived_keys (spki_sha256, namespace, names, serial, not_after, certificates, month)
        SELECT spki_sha256, namespace, names, (array_agg(serial ORDER BY not_after DESC, serial))[1], max(not_after),
            count(*) FILTER (WHERE kind = ''final''), $1
        FROM public.%I GROUP BY spki_sha256, namespace, names', 'certificates' || suffix) USING month;
    EXECUTE format('ALTER TABLE public.certificates DETACH PARTITION public.%I', 'certificates' || suffix);
    EXECUTE format('ALTER TABLE public.requests DETACH PARTITION public.%I', 'requests' || suffix);
    EXECUTE format('DROP TABLE public.%I, public.%I', 'certificates' || suffix, 'requests' || suffix);
END
$$;
-- +goose StatementEnd

-- As before, but for keys that were certified in a month that is archived: they count as they did.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION admit_intents(serials bytea[], issuers text[], spkis bytea[], actors text[], keys text[], bodies bytea[], waits uuid[],
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
                    held := greatest(held, (SELECT count(*) FROM certificates AS c WHERE c.spki_sha256 = i.spki AND c.kind = 'final')
                        + (SELECT coalesce(sum(k.certificates), 0)::bigint FROM archived_keys AS k WHERE k.spki_sha256 = i.spki));
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

GRANT SELECT ON archives, archived_keys TO chancery_service;
REVOKE ALL ON FUNCTION request_bound(timestamptz), make_month_partition(text, timestamp, text, text), archive_obstacle(date, timestamptz),
    archive_month(date, timestamptz, bigint, bytea, bigint, bytea, text, bigint, bytea, text, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION archive_obstacle(date, timestamptz),
    archive_month(date, timestamptz, bigint, bytea, bigint, bytea, text, bigint, bytea, text, uuid) TO chancery_service;

-- +goose StatementBegin
DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['archives', 'archived_keys']
    LOOP
        EXECUTE format('CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
        EXECUTE format('CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END
$$;
-- +goose StatementEnd
