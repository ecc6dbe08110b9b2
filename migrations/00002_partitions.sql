-- The monthly partitions of certificates. The service's role may not create tables; it calls this function, which can do nothing else.

-- +goose Up

-- serial_bound is the smallest serial of a moment: the fixed first octet, 48 bits of Unix milliseconds, zeros to 20 octets.
-- +goose StatementBegin
CREATE FUNCTION serial_bound(moment timestamptz) RETURNS bytea
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
RETURN decode('1c' || lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('00', 13), 'hex');
-- +goose StatementEnd

-- ensure_certificate_partitions makes the partitions from the month before a moment to the third month after it, where they are
-- missing, and returns the span that they cover. A partition is made by itself and then attached: that, unlike CREATE TABLE ...
-- PARTITION OF, leaves readers and writers of the other months alone.
-- +goose StatementBegin
CREATE FUNCTION ensure_certificate_partitions(moment timestamptz, OUT covered_from timestamptz, OUT covered_until timestamptz)
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
        CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtextextended('certificates partitions', 0));
        CONTINUE WHEN to_regclass('public.' || partition) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.certificates INCLUDING ALL)', partition);
        EXECUTE format('ALTER TABLE public.certificates ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', partition,
            public.serial_bound(month AT TIME ZONE 'UTC'), public.serial_bound((month + interval '1 month') AT TIME ZONE 'UTC'));
    END LOOP;
END
$$;
-- +goose StatementEnd

SELECT ensure_certificate_partitions(now());
