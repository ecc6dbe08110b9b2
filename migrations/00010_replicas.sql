-- Replicas that know of each other: who is alive, who leads what must happen once, and which programs can work on a schema. Programs from
-- before this migration go on working beside it; they are not seen among the replicas.

-- +goose Up

-- Which programs can work here: those whose last migration has at least this number. A migration that takes away what older programs use
-- raises it, in its own transaction, once none of them runs any more.
CREATE TABLE schema_compatibility (
    only_row        boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    compatible_from bigint NOT NULL CHECK (compatible_from >= 1)
);
INSERT INTO schema_compatibility (compatible_from) VALUES (6);

-- Working table: the replicas, each with signs of its life.
CREATE TABLE replicas (
    name       text PRIMARY KEY CHECK (name <> ''),
    run        text NOT NULL CHECK (run <> ''),
    version    text NOT NULL,                  -- of its program
    schema     bigint NOT NULL,                -- the last migration that its program knows
    host       text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    beats      bigint NOT NULL,                -- counts the signs of life, under every run
    stopped_at timestamptz                     -- null: it did not stop in good order
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Working table: who leads each duty that one replica does for all. The fence rises with each claim, and never falls.
CREATE TABLE leases (
    duty        text PRIMARY KEY CHECK (duty <> ''),
    fence       bigint NOT NULL DEFAULT 0,
    holder      text,                          -- the replica's name; null: nobody leads
    run         text,
    since       timestamptz,
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- +goose StatementBegin
CREATE FUNCTION refuse_lower_fence() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'the fence of the duty % only rises', OLD.duty USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER fences_rise BEFORE UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION refuse_lower_fence();

-- hold_term is the first statement of each transaction in which a leader acts. It fails where another has been given the duty since, and
-- keeps everybody from being given it until the transaction ends. So of two leaders one has surely ended before the other begins.
-- +goose StatementBegin
CREATE FUNCTION hold_term(of_duty text, of_fence bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    PERFORM FROM leases WHERE duty = of_duty AND fence = of_fence AND holder IS NOT NULL FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'term % of the duty % is over', of_fence, of_duty USING ERRCODE = 'CH001';
    END IF;
END
$$;
-- +goose StatementEnd

GRANT SELECT ON schema_compatibility TO chancery_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON replicas TO chancery_service;
GRANT SELECT, INSERT, UPDATE ON leases TO chancery_service;
REVOKE ALL ON FUNCTION hold_term(text, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hold_term(text, bigint) TO chancery_service;
