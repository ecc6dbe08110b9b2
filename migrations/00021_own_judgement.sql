-- What runs with the owner's rights believes no caller: the log is made of what the leaves are, whatever somebody says that they hash to, and
-- a month leaves the database only long after its end, and with an event that names its file. Programs from before this migration go on
-- working beside it: what they say is true, and they add the event in the same transaction.

-- +goose Up

-- tile_root is the root of a complete tree over 256 nodes, whose hashes stand one behind the other: RFC 6962, section 2.1. Each turn goes up
-- two levels, so that little is spent on what is not hashing.
-- +goose StatementBegin
CREATE FUNCTION tile_root(nodes bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR turn IN 1..4 LOOP
        nodes := (SELECT string_agg(sha256('\x01'::bytea || sha256('\x01'::bytea || substring(nodes FROM at FOR 64))
                || sha256('\x01'::bytea || substring(nodes FROM at + 64 FOR 64))), '' ORDER BY at)
            FROM generate_series(1, octet_length(nodes), 128) AS at);
    END LOOP;
    RETURN nodes;
END
$$;
-- +goose StatementEnd

-- append_to_log gives the leaves of lots their indexes, in the order of the lots and in each as they were written: hashes has one for each,
-- in the same order. It fails, and nothing is done, where the log has another size, or the lots have other leaves, than the caller thinks,
-- and where the subtrees that are complete now have other roots. It comes after hold_term, in one transaction.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION append_to_log(size bigint, lots bigint[], hashes bytea[], levels smallint[], numbers bigint[], roots bytea[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    added integer;
    noted bytea;  -- what the leaves hash to, one behind the other
    nodes bytea;
    below bigint; -- how many leaves are under a node of the level below
    nth   bigint;
BEGIN
    IF size <> coalesce((SELECT max(s.index) + 1 FROM public.audit_sequence AS s), 0) THEN
        RAISE EXCEPTION 'the log has not % leaves', size USING ERRCODE = 'CH002';
    END IF;
    WITH taken AS (
        DELETE FROM public.audit_unsequenced AS u WHERE u.lot = ANY (lots) RETURNING u.lot, u.ids, u.hashes AS noted
    ), leaf AS (
        SELECT l.id, row_number() OVER (ORDER BY t.lot, l.place) AS place FROM taken AS t, unnest(t.ids) WITH ORDINALITY AS l (id, place)
    ), placed AS (
        INSERT INTO public.audit_sequence (index, id, hash)
        SELECT size + l.place - 1, l.id, h.hash
        FROM leaf AS l LEFT JOIN unnest(hashes) WITH ORDINALITY AS h (hash, place) ON h.place = l.place
        ORDER BY l.place
        RETURNING true
    )
    SELECT (SELECT count(*) FROM placed), string_agg(coalesce(t.noted, (
        SELECT string_agg(sha256('\x00'::bytea || a.leaf), '' ORDER BY l.place)
        FROM unnest(t.ids) WITH ORDINALITY AS l (id, place) JOIN public.audit_leaves AS a ON a.id = l.id
    )), '' ORDER BY t.lot)
    INTO added, noted FROM taken AS t;
    IF added <> cardinality(hashes) THEN
        RAISE EXCEPTION 'the lots have % leaves, not %', added, cardinality(hashes) USING ERRCODE = 'CH002';
    END IF;
    IF noted IS DISTINCT FROM (SELECT string_agg(h.hash, '' ORDER BY h.place) FROM unnest(hashes) WITH ORDINALITY AS h (hash, place)) THEN
        RAISE EXCEPTION 'the leaves hash to something else' USING ERRCODE = 'CH002';
    END IF;
    FOR up IN 1..7 LOOP
        below := 1::bigint << 8 * (up - 1);
        FOR nth IN SELECT generate_series(size / below / 256, (size + added) / below / 256 - 1) LOOP
            IF up = 1 THEN
                SELECT string_agg(s.hash, '' ORDER BY s.index) INTO nodes
                FROM public.audit_sequence AS s WHERE s.index >= nth * 256 AND s.index < (nth + 1) * 256;
            ELSE
                SELECT string_agg(s.hash, '' ORDER BY s.n) INTO nodes
                FROM public.audit_subtrees AS s WHERE s.level = up - 1 AND s.n >= nth * 256 AND s.n < (nth + 1) * 256;
            END IF;
            IF octet_length(nodes) IS DISTINCT FROM 32 * 256 THEN
                RAISE EXCEPTION 'subtree % of level % of the log has gaps', nth, up USING ERRCODE = 'data_corrupted';
            END IF;
            INSERT INTO public.audit_subtrees (level, n, hash) VALUES (up, nth, public.tile_root(nodes));
        END LOOP;
    END LOOP;
    IF EXISTS (
        SELECT FROM unnest(levels, numbers, roots) AS g (level, n, hash)
        WHERE NOT EXISTS (SELECT FROM public.audit_subtrees AS s WHERE s.level = g.level AND s.n = g.n AND s.hash = g.hash))
    THEN
        RAISE EXCEPTION 'the subtrees of the log have other roots' USING ERRCODE = 'CH002';
    END IF;
END
$$;
-- +goose StatementEnd

-- As before, but that who asks for nothing is not told that there is nothing.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_backlog(at_most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    page uuid[];
BEGIN
    IF at_most < 1 THEN
        RAISE EXCEPTION 'no page has % leaves', at_most USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT array_agg(l.id ORDER BY l.id) INTO page
    FROM (
        SELECT a.id FROM public.audit_leaves AS a, public.audit_backlog AS b
        WHERE a.id > b.after AND a.id <= b.until ORDER BY a.id LIMIT at_most
    ) AS l;
    IF page IS NULL THEN
        DELETE FROM public.audit_backlog;
        RETURN 0;
    END IF;
    INSERT INTO public.audit_unsequenced (ids)
    SELECT array_agg(p.id ORDER BY p.place) FROM unnest(page) WITH ORDINALITY AS p (id, place)
    WHERE NOT EXISTS (SELECT FROM public.audit_sequence AS s WHERE s.id = p.id)
        AND p.id NOT IN (SELECT unnest(u.ids) FROM public.audit_unsequenced AS u)
    GROUP BY (p.place - 1) / 256 ORDER BY (p.place - 1) / 256;
    UPDATE public.audit_backlog SET after = page[cardinality(page)];
    RETURN cardinality(page);
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION tile_root(bytea) FROM PUBLIC;

-- How long certificates must have ended before they may leave the database, whatever the service asks for: the owner's to change. What the
-- service is configured with (archive.after) may be longer.
CREATE TABLE archive_settings (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    least_age interval NOT NULL CHECK (least_age >= '1 day')
);
INSERT INTO archive_settings (least_age) VALUES ('8 days');
GRANT SELECT ON archive_settings TO chancery_service, chancery_auditor;

-- As before, but that no caller's moment is later than the owner allows.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION archive_obstacle(month date, ended_before timestamptz) RETURNS text
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
    least_age    interval;
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
    SELECT s.least_age INTO STRICT least_age FROM public.archive_settings AS s;
    ended_before := least(ended_before, now() - least_age);
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

-- What is archived is in the log: a month does not leave the database without its event, whoever calls archive_month. It is looked for at the
-- end of the transaction, for the event may come after the archive.
-- +goose StatementBegin
CREATE FUNCTION refuse_unlogged_archive() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    event jsonb := (SELECT convert_from(l.leaf, 'UTF8')::jsonb FROM public.audit_leaves AS l
        WHERE l.id = NEW.event_id AND l.kind = 'archive.made');
BEGIN
    IF (event ->> 'kind', event -> 'data' ->> 'month', event -> 'data' ->> 'file', event -> 'data' ->> 'sha256')
        IS DISTINCT FROM ('archive.made', to_char(NEW.month, 'YYYY-MM'), NEW.file, encode(NEW.sha256, 'hex'))
    THEN
        RAISE EXCEPTION 'the month % cannot be archived: no event archive.made names its file', NEW.month
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION refuse_unlogged_archive() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER archives_are_logged AFTER INSERT ON archives
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_unlogged_archive();
