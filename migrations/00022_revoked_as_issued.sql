-- A revocation reaches the CRL that its certificate names, for as long as that lasts. One that was recorded for another CRL, or as of a
-- certificate that ended long ago, would keep a valid certificate off every CRL, and the right entry would come too late: it is revoked
-- already. Programs from before this migration go on working beside it: they take what they record of a certificate from its row.

-- +goose Up

-- An entry follows the one before it as a certificate's life does. Besides, where the last one is not as the certificate on record says, which
-- is older than what is below or than that record, one that revokes for good may follow it, whatever its reason: so that is set right.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_out_of_sequence() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    latest record;
BEGIN
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

-- What is on record of a certificate says which CRL its revocation is for, until when, and of which key: the certificate itself before what
-- was only possibly signed, a final one before a precertificate, so that no further row of its serial changes that. Authorities are on the
-- one CRL of their parent; the serial and the end of an authority are looked for in its certificate (RFC 5280, section 4.1). Of serials that
-- are on no record nothing is asked: months that were archived, and certificates that were lost with a database. A statement's rows are
-- looked at together, so that many cost little more than one.
-- +goose StatementBegin
CREATE FUNCTION refuse_revoking_elsewhere() RETURNS trigger
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
        WHERE position('\x02'::bytea || set_byte('\x00', 0, octet_length(s.octets)) || s.octets IN a.certificate) > 0
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
CREATE TRIGGER entries_agree AFTER INSERT ON revocations
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_revoking_elsewhere();
