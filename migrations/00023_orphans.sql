-- An orphan is what was possibly signed and never became known. One that is added beside what is on record would stand for it where
-- certificates are chosen, and say of it what is not so: another CRL, another key, an end that is over. A settlement never adds one of what
-- is on record; a certificate's orphan beside its precertificate is of the same serial, and as that says. Programs from before this migration
-- go on working beside it.

-- +goose Up

-- +goose StatementBegin
CREATE FUNCTION refuse_orphan_of_record() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM public.certificates AS c
    WHERE c.serial = NEW.serial AND c.issuer = NEW.issuer AND (c.kind = NEW.kind
        OR (c.crl_scope, c.not_after, c.spki_sha256) IS DISTINCT FROM (NEW.crl_scope, NEW.not_after, NEW.spki_sha256));
    IF FOUND THEN
        RAISE EXCEPTION 'the serial % of % is on record as a certificate, and no orphan, or with another CRL, end or key',
            encode(NEW.serial, 'hex'), NEW.issuer USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER never_on_record BEFORE INSERT ON orphans FOR EACH ROW EXECUTE FUNCTION refuse_orphan_of_record();
