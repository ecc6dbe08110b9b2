-- What the service adds stays, so it is such that what reads it can: no moment is infinite or of a year that nobody writes, a revocation fits on a
-- CRL and says itself when it was written, versions are counted one by one. And a month waits for the certificates of the next that were asked for
-- in it. Programs from before this migration go on working beside it: they write nothing else than what is let through here.

-- +goose NO TRANSACTION
-- +goose Up

-- A moment that is infinite is no time to a program, and one row of it would keep all those beside it from being read. Years have four digits, on
-- CRLs and in JSON; a length of time has no more nanoseconds than 63 bits count. Leases are only compared, and -infinity is that of nobody. How
-- long a reservation is for is never read, and may be for ever.
--
-- Rows from before are not looked at. Each table is closed for the moment of a change in the catalogue, and by itself; while a long query is in the
-- way nobody is made to wait behind it for more than a second at a time. What was done before this was interrupted is not done again.
-- +goose StatementBegin
DO $$
DECLARE
    change record;
    tries  integer;
BEGIN
    FOR change IN
        SELECT t.relname AS bounded, 'times_are_bounded' AS called, string_agg(CASE
            WHEN a.atttypid = 'interval'::regtype THEN format('%I BETWEEN ''-106751 days'' AND ''106751 days''', a.attname)
            WHEN a.attname = 'lease_until' THEN format('%I < ''10000-01-01 00:00Z''', a.attname)
            ELSE format('%I >= ''0001-01-01 00:00Z BC'' AND %1$I < ''10000-01-01 00:00Z''', a.attname)
        END, ' AND ' ORDER BY a.attnum) AS holds
        FROM pg_class AS t JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition AND t.relname <> 'reservations'
            AND a.atttypid IN ('timestamptz'::regtype, 'interval'::regtype)
            AND has_any_column_privilege('chancery_service', t.oid, 'INSERT, UPDATE')
        GROUP BY t.relname
        UNION ALL
        -- RFC 5280, sections 4.1.2.2 and 5.1.2.6. A serial in two writings would be two entries of one; and what counts as issued can be revoked.
        SELECT f.bounded, 'fits_on_a_crl', f.holds || 'octet_length(serial) BETWEEN 1 AND 20 AND substring(serial FROM 1 FOR 1) <> ''\x00'''
        FROM (VALUES ('revocations', 'at >= ''1950-01-01 00:00Z'' AND '), ('crl_pending', ''), ('intents', ''), ('orphans', ''),
            ('imported_certificates', '')) AS f (bounded, holds)
        ORDER BY 1, 2
    LOOP
        tries := 0;
        LOOP
            BEGIN
                PERFORM set_config('lock_timeout', '1s', true);
                EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT %I CHECK (%s) NOT VALID', change.bounded, change.called, change.holds);
                EXIT;
            EXCEPTION
                WHEN duplicate_object THEN
                    EXIT;
                WHEN lock_not_available OR deadlock_detected THEN
                    tries := tries + 1;
                    IF tries >= 100 THEN
                        RAISE;
                    END IF;
            END;
            COMMIT;
            PERFORM pg_sleep(2);
        END LOOP;
        COMMIT;
    END LOOP;
END
$$;
-- +goose StatementEnd

-- As in 00022, but that the transaction which wrote an entry is what it is, whatever the entry says. With one of before, replicas that go on from
-- what they have seen would miss it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_out_of_sequence() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    latest record;
BEGIN
    NEW.xact := pg_current_xact_id();
    SELECT r.sequence, r.reason, r.crl_scope, r.not_after INTO latest FROM public.revocations AS r
    WHERE r.issuer = NEW.issuer AND r.serial = NEW.serial ORDER BY r.sequence DESC LIMIT 1;
    IF NEW.sequence = coalesce(latest.sequence, 0) + 1 AND (CASE NEW.reason
        WHEN 8 THEN latest.reason = 6
        WHEN 6 THEN coalesce(latest.reason, 8) = 8
        ELSE coalesce(latest.reason, 8) IN (6, 8) END)
    THEN
        RETURN NEW;
    END IF;
    PERFORM FROM public.revocations AS r WHERE r.issuer = NEW.issuer AND r.serial = NEW.serial AND r.sequence = NEW.sequence;
    IF FOUND THEN
        RETURN NEW;
    END IF;
    IF NEW.sequence = latest.sequence + 1 AND NEW.reason NOT IN (6, 8) AND (latest.crl_scope, latest.not_after) <> (
        SELECT i.crl_scope, i.not_after FROM public.issued AS i
        WHERE i.serial = NEW.serial AND i.issuer = NEW.issuer ORDER BY i.orphan, i.kind LIMIT 1)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'entry % with reason % does not follow entry % with reason % of the certificate', NEW.sequence, NEW.reason,
        coalesce(latest.sequence, 0), latest.reason USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd

-- As in 00022, but that an authority's serial number is looked for where it stands: behind the version, before the signature's algorithm, at the
-- beginning of the certificate (RFC 5280, section 4.1). One of a single octet stands in every certificate somewhere, as its version does.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_revoking_elsewhere() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong record;
BEGIN
    SELECT e.serial, e.issuer, e.crl_scope, e.not_after INTO wrong
    FROM added AS e CROSS JOIN LATERAL (
        SELECT i.crl_scope, i.not_after, i.spki_sha256 FROM public.issued AS i
        WHERE i.serial = e.serial AND i.issuer = e.issuer ORDER BY i.orphan, i.kind LIMIT 1
    ) AS c
    WHERE (c.crl_scope, c.not_after, c.spki_sha256) <> (e.crl_scope, e.not_after, e.spki_sha256)
    LIMIT 1;
    IF NOT FOUND THEN
        SELECT e.serial, e.issuer, e.crl_scope, e.not_after INTO wrong
        FROM added AS e JOIN public.authorities AS a ON a.parent = e.issuer
        CROSS JOIN LATERAL (
            SELECT CASE WHEN get_byte(e.serial, 0) > 127 THEN '\x00'::bytea ELSE ''::bytea END || e.serial AS octets
        ) AS s
        CROSS JOIN LATERAL (
            SELECT CASE WHEN e.not_after >= '1950-01-01 00:00Z' AND e.not_after < '2050-01-01 00:00Z'
                THEN '\x170d'::bytea || convert_to(to_char(e.not_after AT TIME ZONE 'UTC', 'YYMMDDHH24MISS"Z"'), 'UTF8')
                ELSE '\x180f'::bytea || convert_to(to_char(e.not_after AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISS"Z"'), 'UTF8')
            END || '\x30'::bytea AS octets -- and the subject's name begins
        ) AS until
        WHERE position('\xa00302010202'::bytea || set_byte('\x00', 0, octet_length(s.octets)) || s.octets || '\x30'::bytea
                IN substring(a.certificate FROM 1 FOR 40)) > 0
            AND (e.crl_scope <> 'full' OR coalesce(position(until.octets IN a.certificate), 0) = 0)
        LIMIT 1;
    END IF;
    IF FOUND THEN
        RAISE EXCEPTION 'the certificate % of % is on record with another CRL, end or key than its revocation for % until %',
            encode(wrong.serial, 'hex'), wrong.issuer, wrong.crl_scope, wrong.not_after USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- Policies that rule and versions of a namespace are counted one by one, so that there is always a next. Of two that want one place, the primary
-- key lets one in, which callers count on.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_leaving_numbers_out() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    latest bigint;
    wanted bigint;
BEGIN
    IF TG_TABLE_NAME = 'namespaces' THEN
        SELECT coalesce(max(n.version), 0) INTO latest FROM public.namespaces AS n WHERE n.name = NEW.name;
        wanted := NEW.version;
    ELSE
        SELECT coalesce(max(p.number), 0) INTO latest FROM public.policy_activations AS p;
        wanted := NEW.number;
    END IF;
    IF wanted - 1 > latest THEN
        RAISE EXCEPTION 'the number % does not follow % in %', wanted, latest, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER numbers_follow BEFORE INSERT ON namespaces FOR EACH ROW EXECUTE FUNCTION refuse_leaving_numbers_out();
CREATE OR REPLACE TRIGGER numbers_follow BEFORE INSERT ON policy_activations FOR EACH ROW EXECUTE FUNCTION refuse_leaving_numbers_out();

-- As in 00021, but that a month waits for the certificates too that were asked for in it and made in another: an order to revoke what somebody has
-- asked for finds him in the request. An intent of such a one may become a certificate yet.
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
    serial_near  bytea := public.serial_bound(low - interval '1 day'); -- replicas' clocks are not that far apart
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
    IF EXISTS (SELECT FROM public.intents AS i
        WHERE (i.serial >= serial_low AND i.serial < serial_high) OR (i.request_id >= request_low AND i.request_id < request_high))
    THEN
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
    IF EXISTS (SELECT FROM public.certificates AS c
        WHERE c.serial >= serial_near AND c.request_id >= request_low AND c.request_id < request_high AND c.not_after >= ended_before)
        OR EXISTS (SELECT FROM public.orphans AS o
        WHERE o.request_id >= request_low AND o.request_id < request_high AND o.not_after >= ended_before)
    THEN
        RETURN 'a certificate of another month that was requested in it has not ended';
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
