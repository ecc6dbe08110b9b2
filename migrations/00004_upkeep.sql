-- What upkeep needs. Programs from before this migration go on working beside it.

-- +goose Up

COMMENT ON COLUMN requests.results IS 'Of the rules that did not simply allow; which were asked besides, the policy digest tells.';

-- Upkeep deletes the idempotency keys of a week ago. Rows come in the order of their time, so a few pages of summary find the old ones.
CREATE INDEX idempotency_keys_age ON idempotency_keys USING brin (created_at);

-- As before, but for how a partition is looked for: the catalogue is asked by a query, because to_regclass answers from a cache that
-- waiting for the lock does not refresh. Two replicas that made the same month at once failed.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ensure_certificate_partitions(moment timestamptz, OUT covered_from timestamptz, OUT covered_until timestamptz)
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    first     timestamp := date_trunc('month', moment AT TIME ZONE 'UTC') - interval '1 month';
    month     timestamp;
    partition text;
BEGIN
    covered_from := first AT TIME ZONE 'UTC';
    covered_until := (first + interval '5 months') AT TIME ZONE 'UTC';
    FOR i IN 0..4 LOOP
        month := first + make_interval(months => i);
        partition := 'certificates_' || to_char(month, 'YYYY_MM');
        CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = partition);
        PERFORM pg_advisory_xact_lock(hashtextextended('certificates partitions', 0));
        CONTINUE WHEN EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = partition);
        EXECUTE format('CREATE TABLE public.%I (LIKE public.certificates INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE public.certificates ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', partition,
            public.serial_bound(month AT TIME ZONE 'UTC'), public.serial_bound((month + interval '1 month') AT TIME ZONE 'UTC'));
    END LOOP;
END
$$;
-- +goose StatementEnd
