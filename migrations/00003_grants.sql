-- Who may do what. The service works as chancery_service, which can add facts and never change or remove them.

-- +goose Up

-- Roles belong to the whole cluster: another database's migration may have made this one, or be making it now.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chancery_service') THEN
        CREATE ROLE chancery_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
-- +goose StatementEnd

-- Whoever migrates owns the tables; let it also work as the service. Where it may not grant that, an administrator has to.
-- +goose StatementBegin
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'chancery_service', 'MEMBER') THEN
        EXECUTE format('GRANT chancery_service TO %I', current_user);
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'the role % cannot make itself a member of chancery_service', current_user;
END
$$;
-- +goose StatementEnd

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO chancery_service;
GRANT SELECT ON goose_db_version TO chancery_service;

-- Facts.
GRANT SELECT, INSERT ON authorities, requests, certificates, orphans, imported_certificates, revocations, compromised_keys,
    crl_intents, crls, audit_leaves TO chancery_service;
GRANT SELECT ON issued TO chancery_service;

-- Working tables.
GRANT SELECT, INSERT, DELETE, UPDATE (owner_name, owner_run, lease_until) ON intents TO chancery_service;
GRANT SELECT, INSERT, DELETE ON idempotency_keys, crl_pending TO chancery_service;
GRANT SELECT, INSERT, UPDATE (last_number, fence, holder, lease_until, published_number, this_update, next_update)
    ON crl_scopes TO chancery_service;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON api_tokens TO chancery_service;

REVOKE ALL ON FUNCTION serial_bound(timestamptz), ensure_certificate_partitions(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_certificate_partitions(timestamptz) TO chancery_service;

-- The grants are the guard. The triggers are for the owner's slips: a wrong UPDATE in psql fails instead of rewriting history.
-- Archiving detaches and drops whole partitions, which no trigger stands against.
-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION '% holds facts: rows are added and never changed or removed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['authorities', 'requests', 'certificates', 'orphans', 'imported_certificates', 'revocations',
        'compromised_keys', 'crl_intents', 'crls', 'audit_leaves']
    LOOP
        EXECUTE format('CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
        EXECUTE format('CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION refuse_going_back() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.last_number < OLD.last_number OR NEW.fence < OLD.fence
        OR NEW.published_number < OLD.published_number OR NEW.published_number > NEW.last_number
    THEN
        RAISE EXCEPTION 'the number and the fence of CRL scope %/% only rise', OLD.issuer, OLD.scope USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd

CREATE TRIGGER numbers_rise BEFORE UPDATE ON crl_scopes FOR EACH ROW EXECUTE FUNCTION refuse_going_back();
