-- What the service may change or add is bounded, so that one that was taken over leaves nothing behind that holds up those after it, or takes a
-- fact back: the entries of a certificate follow each other as a life does; a number or a fence leaves room for the next; a CRL is on record when it
-- is its scope's turn, and loses its octets to published ones alone; no receiver of the audit log is beyond its end. Programs from before this
-- migration go on working beside it: they do nothing else than what is let through here.

-- +goose Up

-- A revocation for good is the last entry. A hold is ended by a release or by a revocation for good, and a release is of a hold; after it, all is
-- as before the first entry. Of two entries that want one place, the primary key lets one in, which callers count on.
-- +goose StatementBegin
CREATE FUNCTION refuse_out_of_sequence() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    latest record;
BEGIN
    SELECT r.sequence, r.reason INTO latest FROM public.revocations AS r
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
    RAISE EXCEPTION 'entry % with reason % does not follow entry % with reason % of the certificate', NEW.sequence, NEW.reason,
        coalesce(latest.sequence, 0), latest.reason USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER entries_follow BEFORE INSERT ON revocations FOR EACH ROW EXECUTE FUNCTION refuse_out_of_sequence();

-- A CRL number may leap: to the time, above what a keeper has signed unseen, or to that of a CRL made elsewhere. How far ahead of the time it may
-- be, the keeper's policy knows. Here it leaves room for 2^64 more below 2^159, where numbers end (RFC 5280, section 5.2.3). A fence rises one by
-- one, and nobody holds a claim for days.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_going_back() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.last_number < OLD.last_number OR NEW.fence < OLD.fence OR NEW.published_number < OLD.published_number
        OR NEW.published_number > NEW.last_number OR NEW.published_number IS NULL AND OLD.published_number IS NOT NULL
        OR NEW.delta_number > NEW.last_number
    THEN
        RAISE EXCEPTION 'the number and the fence of CRL scope %/% only rise', NEW.issuer, NEW.scope USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.last_number > greatest(coalesce(OLD.last_number, 0) + 1, 730750818665451459101842416339694765754256719872) THEN
        RAISE EXCEPTION 'the CRL number % of scope %/% leaves no room for those after it', NEW.last_number, NEW.issuer, NEW.scope
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.fence - 1 > coalesce(OLD.fence, 0) OR NEW.lease_until > clock_timestamp() + interval '1 day' THEN
        RAISE EXCEPTION 'a claim of CRL scope %/% is the next one, and ends within a day', NEW.issuer, NEW.scope
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER numbers_rise BEFORE INSERT OR UPDATE ON crl_scopes FOR EACH ROW EXECUTE FUNCTION refuse_going_back();

-- A CRL comes on record with the number that its scope has reached, in the transaction that makes it the current one.
-- +goose StatementBegin
CREATE FUNCTION refuse_crl_out_of_turn() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM public.crl_scopes AS s WHERE s.issuer = NEW.issuer AND s.scope = NEW.scope AND s.last_number = NEW.number;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the number % is not the last of CRL scope %/%', NEW.number, NEW.issuer, NEW.scope USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER in_turn BEFORE INSERT ON crls FOR EACH ROW EXECUTE FUNCTION refuse_crl_out_of_turn();
CREATE TRIGGER in_turn BEFORE INSERT ON crl_deltas FOR EACH ROW EXECUTE FUNCTION refuse_crl_out_of_turn();

-- As in 00007, but that the two later CRLs are published ones. What was never published supersedes nothing.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_crl_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.der <> '' AND NEW.der = '' AND NEW.der_sha256 = sha256(OLD.der)
        AND (OLD.der_sha256 IS NULL OR OLD.der_sha256 = NEW.der_sha256)
        AND (NEW.issuer, NEW.scope, NEW.number, NEW.this_update, NEW.next_update, NEW.entries, NEW.event_id)
            = (OLD.issuer, OLD.scope, OLD.number, OLD.this_update, OLD.next_update, OLD.entries, OLD.event_id)
        AND (SELECT count(*) FROM public.crls AS c WHERE c.issuer = OLD.issuer AND c.scope = OLD.scope AND c.number > OLD.number
            AND c.number <= (SELECT s.published_number FROM public.crl_scopes AS s WHERE s.issuer = OLD.issuer AND s.scope = OLD.scope)) >= 2
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'crls holds facts: rows are added and never changed or removed' USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION prune_crls(of_issuer text, of_scope text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER STRICT
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    pruned integer;
BEGIN
    UPDATE public.crls AS c SET der = '', der_sha256 = sha256(c.der)
    WHERE c.issuer = of_issuer AND c.scope = of_scope AND octet_length(c.der) > 65536
        AND c.number IN (SELECT l.number FROM public.crls AS l WHERE l.issuer = of_issuer AND l.scope = of_scope
            AND l.number <= (SELECT s.published_number FROM public.crl_scopes AS s WHERE s.issuer = of_issuer AND s.scope = of_scope)
            ORDER BY l.number DESC OFFSET 2 LIMIT 8);
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END
$$;
-- +goose StatementEnd

-- The fence of a duty rises one by one, so that there is always a next; and a duty keeps its name, so that none begins anew.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_lower_fence() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.fence < OLD.fence OR NEW.duty <> OLD.duty THEN
        RAISE EXCEPTION 'the fence of the duty % only rises', NEW.duty USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.fence - 1 > coalesce(OLD.fence, 0) OR NEW.lease_until > clock_timestamp() + interval '1 day' THEN
        RAISE EXCEPTION 'a term of the duty % is the next one, and ends within a day', NEW.duty USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER fences_rise BEFORE INSERT OR UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION refuse_lower_fence();

-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_undoing_revocation() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.next_lot < OLD.next_lot OR NEW.fence < OLD.fence OR NEW.fence - 1 > OLD.fence OR OLD.outcome <> '' THEN
        RAISE EXCEPTION 'the progress of revocation job % only rises, its fence one by one, and it ends once', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd

-- A cursor beyond the end of the log would keep its receiver from getting what comes until the log has grown so far.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_delivering_again() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.next_index < OLD.next_index THEN
        RAISE EXCEPTION 'the cursor of receiver % only rises', NEW.receiver USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.next_index > 0 AND NOT EXISTS (SELECT FROM public.audit_sequence AS s WHERE s.index = NEW.next_index - 1) THEN
        RAISE EXCEPTION 'the audit log ends before %, where the cursor of receiver % would be', NEW.next_index, NEW.receiver
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE OR REPLACE TRIGGER cursors_rise BEFORE INSERT OR UPDATE ON delivery_cursors FOR EACH ROW EXECUTE FUNCTION refuse_delivering_again();
