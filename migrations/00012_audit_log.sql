-- The log: every audit leaf gets a place in a sequence without gaps, and the sequence is a Merkle tree (RFC 6962) whose roots are signed now
-- and then. Programs from before this migration go on working beside it: a trigger hands their leaves to the sequencer as well.

-- +goose Up

-- Working table: leaves without an index, in lots of one statement each. The trigger on audit_leaves alone adds to it, append_to_log alone
-- takes from it: whoever can add a leaf cannot keep it out of the log.
CREATE TABLE audit_unsequenced (
    lot        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ids        uuid[] NOT NULL CHECK (cardinality(ids) > 0), -- in the order in which they were written
    written_at timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, toast_tuple_target = 8160);
ALTER TABLE audit_unsequenced ALTER COLUMN ids SET STORAGE EXTERNAL;

-- Working table: leaves from before this migration that are still to be looked at, in the order of their identifiers. A walk over a
-- hundred million leaves is no work for a migration, during which nobody can issue.
CREATE TABLE audit_backlog (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    after    uuid NOT NULL,
    until    uuid NOT NULL
);

-- Facts: the sequence. hash is that of RFC 6962, section 2.1: SHA-256 over an octet 0 and the leaf.
CREATE TABLE audit_sequence (
    index bigint PRIMARY KEY CHECK (index >= 0),
    id    uuid NOT NULL UNIQUE,
    hash  bytea NOT NULL CHECK (octet_length(hash) = 32)
);

-- Facts: roots of complete subtrees of 256^level leaves, the nth of each level. With the hashes of the sequence, which are level 0, they
-- are all that a tile of the height 8 consists of.
CREATE TABLE audit_subtrees (
    level smallint NOT NULL CHECK (level BETWEEN 1 AND 7),
    n     bigint NOT NULL CHECK (n >= 0),
    hash  bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, n)
);

-- Facts: signed checkpoints (C2SP tlog-checkpoint). Of one size there is one.
CREATE TABLE audit_checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note text NOT NULL,                        -- the signed note
    at   timestamptz NOT NULL DEFAULT now()
);

-- Facts: what witnesses signed (C2SP tlog-cosignature), a signature line each.
CREATE TABLE audit_cosignatures (
    size    bigint NOT NULL REFERENCES audit_checkpoints,
    witness text NOT NULL CHECK (witness <> ''), -- its verifier key
    line    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (size, witness)
);

-- Facts: the keys that checkpoints were signed with, as verifier keys of signed notes.
CREATE TABLE audit_keys (
    verifier text PRIMARY KEY CHECK (verifier <> ''),
    added_at timestamptz NOT NULL DEFAULT now(),
    event_id uuid NOT NULL
);

-- Each statement that adds leaves adds one lot. The identifiers alone are noted: what the log is made of is read from the leaves.
-- +goose StatementBegin
CREATE FUNCTION queue_for_log() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.audit_unsequenced (ids) SELECT array_agg(l.id) FROM added AS l HAVING count(*) > 0;
    RETURN NULL;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION queue_for_log() FROM PUBLIC;
CREATE TRIGGER leaves_are_sequenced AFTER INSERT ON audit_leaves
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION queue_for_log();

-- Making the trigger waited for everybody who was adding leaves: what is there now, and no more, is from before.
INSERT INTO audit_backlog (after, until)
SELECT '00000000-0000-0000-0000-000000000000', id FROM audit_leaves ORDER BY id DESC LIMIT 1;

-- queue_backlog makes lots of leaves from before this migration, the oldest first, and tells how many it looked at: 0 when all are done.
-- +goose StatementBegin
CREATE FUNCTION queue_backlog(at_most integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    page uuid[];
BEGIN
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

-- append_to_log gives the leaves of lots their indexes, in the order of the lots and in each as they were written: hashes has one for each,
-- in the same order. It fails, and nothing is done, where the log has another size or the lots have other leaves than the caller thinks. It
-- comes after hold_term, in one transaction.
-- +goose StatementBegin
CREATE FUNCTION append_to_log(size bigint, lots bigint[], hashes bytea[], levels smallint[], numbers bigint[], roots bytea[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    added integer;
BEGIN
    IF size <> coalesce((SELECT max(s.index) + 1 FROM public.audit_sequence AS s), 0) THEN
        RAISE EXCEPTION 'the log has not % leaves', size USING ERRCODE = 'CH002';
    END IF;
    WITH taken AS (
        DELETE FROM public.audit_unsequenced AS u WHERE u.lot = ANY (lots) RETURNING u.lot, u.ids
    ), leaf AS (
        SELECT l.id, row_number() OVER (ORDER BY t.lot, l.place) AS place FROM taken AS t, unnest(t.ids) WITH ORDINALITY AS l (id, place)
    )
    INSERT INTO public.audit_sequence (index, id, hash)
    SELECT size + l.place - 1, l.id, h.hash FROM leaf AS l LEFT JOIN unnest(hashes) WITH ORDINALITY AS h (hash, place) ON h.place = l.place
    ORDER BY l.place;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added <> cardinality(hashes) THEN
        RAISE EXCEPTION 'the lots have % leaves, not %', added, cardinality(hashes) USING ERRCODE = 'CH002';
    END IF;
    INSERT INTO public.audit_subtrees (level, n, hash) SELECT * FROM unnest(levels, numbers, roots);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION refuse_smaller_checkpoint() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.size < (SELECT max(c.size) FROM public.audit_checkpoints AS c) OR NOT EXISTS (SELECT FROM public.audit_sequence AS s WHERE s.index = NEW.size - 1)
    THEN
        RAISE EXCEPTION 'a checkpoint of size % is smaller than the last one, or larger than the log', NEW.size USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER checkpoints_grow BEFORE INSERT ON audit_checkpoints FOR EACH ROW EXECUTE FUNCTION refuse_smaller_checkpoint();

-- +goose StatementBegin
DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['audit_sequence', 'audit_subtrees', 'audit_checkpoints', 'audit_cosignatures', 'audit_keys']
    LOOP
        EXECUTE format('CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
        EXECUTE format('CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END
$$;
-- +goose StatementEnd

GRANT SELECT ON audit_unsequenced, audit_backlog, audit_sequence, audit_subtrees TO chancery_service;
GRANT SELECT, INSERT ON audit_checkpoints, audit_cosignatures, audit_keys TO chancery_service;
REVOKE ALL ON FUNCTION refuse_smaller_checkpoint(), queue_backlog(integer),
    append_to_log(bigint, bigint[], bytea[], smallint[], bigint[], bytea[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION queue_backlog(integer), append_to_log(bigint, bigint[], bytea[], smallint[], bigint[], bytea[]) TO chancery_service;
