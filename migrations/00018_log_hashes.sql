-- What the log is made of is noted in the transaction that adds the leaves, so that nobody reads them again to give them their places, and
-- nobody can change one in between. Programs from before this migration go on working beside it: they read the leaves, as ever.

-- +goose Up

-- hashes are those of RFC 6962, section 2.1, one behind the other, in the order of ids; of lots from before this migration, and of those that
-- queue_backlog makes, there are none.
ALTER TABLE audit_unsequenced
    ADD COLUMN hashes bytea,
    ADD CHECK (octet_length(hashes) = 32 * cardinality(ids));
ALTER TABLE audit_unsequenced ALTER COLUMN hashes SET STORAGE EXTERNAL;

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION queue_for_log() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.audit_unsequenced (ids, hashes)
    SELECT array_agg(l.id), string_agg(sha256('\x00'::bytea || l.leaf), '') FROM added AS l HAVING count(*) > 0;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
