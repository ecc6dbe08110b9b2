-- The tables. Facts are only ever added to; working tables hold what is going on now. 00003_grants.sql tells which is which.
--
-- Foreign keys are rare on purpose. None may point into the partitions of certificates, which are archived one day; and one from
-- every certificate to its authority would make all issuance lock the same row.

-- +goose Up

-- Facts: the authorities. A row names its key and never holds it.
CREATE TABLE authorities (
    name         text PRIMARY KEY CHECK (name <> ''),
    parent       text NOT NULL,                -- empty for a root
    certificate  bytea NOT NULL,               -- DER
    chain        bytea[] NOT NULL,             -- DER, from its own certificate to the root
    online       boolean NOT NULL,
    key_token    text NOT NULL,
    key_label    text NOT NULL,
    key_id       bytea NOT NULL,
    crl_period   interval NOT NULL,
    crl_validity interval NOT NULL,
    crl_url      text NOT NULL,
    issuer_url   text NOT NULL,
    added_at     timestamptz NOT NULL
);
CREATE UNIQUE INDEX authorities_certificate ON authorities (sha256(certificate));

-- Facts: requests, with all that their decision saw, so that later policies can be tried on them.
CREATE TABLE requests (
    id              uuid PRIMARY KEY,
    at              timestamptz NOT NULL,
    actor_id        text NOT NULL,
    actor_name      text NOT NULL,
    namespace       text NOT NULL,
    roles           text[] NOT NULL,
    profile         text NOT NULL,
    issuer          text NOT NULL,
    csr             bytea,                     -- DER; null where the authority made the request itself
    spki_sha256     bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    validity        interval NOT NULL,         -- asked for; zero: the profile's
    metadata        jsonb NOT NULL,
    verdict         text NOT NULL,
    results         jsonb NOT NULL,
    policy_digest   text NOT NULL,
    compromised_key boolean NOT NULL
);

-- Working table: to-be-signed certificates whose outcome is not yet on record. Whoever owns the row decides what becomes of it.
-- It stays small and changes with every issuance, so it is vacuumed early.
CREATE TABLE intents (
    serial            bytea NOT NULL CHECK (octet_length(serial) = 20),
    issuer            text NOT NULL,
    kind              text NOT NULL CHECK (kind IN ('precertificate', 'final')),
    tbs               bytea NOT NULL,
    crl_scope         text NOT NULL,
    spki_sha256       bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    namespace         text NOT NULL,
    profile           text NOT NULL,
    policy_digest     text NOT NULL,
    not_after         timestamptz NOT NULL,
    request_id        uuid NOT NULL,
    idempotency_actor text NOT NULL,
    idempotency_key   text NOT NULL,           -- empty: the request had none
    created_at        timestamptz NOT NULL DEFAULT now(),
    owner_name        text NOT NULL,
    owner_run         text NOT NULL,
    lease_until       timestamptz NOT NULL,
    PRIMARY KEY (serial, issuer, kind)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Working table: callers' names for requests. A settled intent frees its key again.
CREATE TABLE idempotency_keys (
    actor      text NOT NULL,
    key        text NOT NULL CHECK (key <> ''),
    body       bytea NOT NULL CHECK (octet_length(body) = 32),
    issuer     text NOT NULL,
    serial     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, key)
);

-- Facts: certificates. Serials begin with their time, so ranges of serials are months, a look-up by serial touches one partition,
-- and new rows go to the right end of the index. The key starts with the serial because most look-ups know nothing else.
-- There is no default partition: it would make every later partition wait for a scan of it.
CREATE TABLE certificates (
    serial        bytea NOT NULL CHECK (octet_length(serial) = 20),
    issuer        text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('precertificate', 'final')),
    der           bytea NOT NULL,
    spki_sha256   bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    crl_scope     text NOT NULL,
    profile       text NOT NULL,
    policy_digest text NOT NULL,
    namespace     text NOT NULL,
    request_id    uuid,
    subject       text NOT NULL,
    names         text[] NOT NULL,
    search        text NOT NULL,               -- subject and names in lower case
    not_before    timestamptz NOT NULL,
    not_after     timestamptz NOT NULL,
    issued_at     timestamptz NOT NULL,
    event_id      uuid NOT NULL,               -- of the certificate.issued leaf
    PRIMARY KEY (serial, issuer, kind)
) PARTITION BY RANGE (serial);
CREATE INDEX certificates_namespace ON certificates (namespace, serial DESC, issuer DESC);
CREATE INDEX certificates_spki ON certificates (spki_sha256);
CREATE INDEX certificates_not_after ON certificates USING brin (not_after);

-- Facts: settled intents. A signature may exist, so the serial counts as issued, and is revoked.
CREATE TABLE orphans (
    serial        bytea NOT NULL CHECK (octet_length(serial) = 20),
    issuer        text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('precertificate', 'final')),
    tbs           bytea NOT NULL,
    spki_sha256   bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    crl_scope     text NOT NULL,
    profile       text NOT NULL,
    policy_digest text NOT NULL,
    namespace     text NOT NULL,
    request_id    uuid NOT NULL,
    not_after     timestamptz NOT NULL,
    intended_at   timestamptz NOT NULL,
    settled_at    timestamptz NOT NULL,
    reason        text NOT NULL,               -- why it was settled, for people
    event_id      uuid NOT NULL,               -- of the certificate.orphaned leaf
    PRIMARY KEY (serial, issuer, kind)
);

-- Facts: certificates that another system issued. Their serials follow no order and have any length.
CREATE TABLE imported_certificates (
    serial      bytea NOT NULL CHECK (octet_length(serial) BETWEEN 1 AND 20),
    issuer      text NOT NULL,
    der         bytea NOT NULL,
    spki_sha256 bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    crl_scope   text NOT NULL,
    namespace   text NOT NULL,
    subject     text NOT NULL,
    names       text[] NOT NULL,
    search      text NOT NULL,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    imported_at timestamptz NOT NULL,
    event_id    uuid NOT NULL,
    PRIMARY KEY (serial, issuer)
);
CREATE INDEX imported_certificates_spki ON imported_certificates (spki_sha256);

-- All serials that count as issued, signed for certain or perhaps.
CREATE VIEW issued AS
    SELECT serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, subject, names, search,
           not_before, not_after, issued_at, event_id, false AS orphan
    FROM certificates
    UNION ALL
    SELECT serial, issuer, kind, NULL, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, '', '{}', '',
           intended_at, not_after, intended_at, event_id, true
    FROM orphans;

-- Facts: revocations, in a sequence per certificate. The latest entry is the state.
CREATE TABLE revocations (
    issuer          text NOT NULL,
    serial          bytea NOT NULL,
    sequence        integer NOT NULL CHECK (sequence >= 1),
    reason          smallint NOT NULL CHECK (reason IN (0, 1, 2, 3, 4, 5, 6, 8, 9, 10)), -- RFC 5280, section 5.3.1
    at              timestamptz NOT NULL,
    invalidity_date timestamptz,
    comment         text NOT NULL,
    actor           text NOT NULL,
    event_id        uuid NOT NULL,
    crl_scope       text NOT NULL,
    not_after       timestamptz NOT NULL,      -- of the certificate: it may leave the CRL afterwards
    spki_sha256     bytea NOT NULL CHECK (octet_length(spki_sha256) = 32),
    PRIMARY KEY (issuer, serial, sequence)
);
CREATE INDEX revocations_scope ON revocations (issuer, crl_scope, serial, sequence DESC);

-- Facts: keys known to be compromised, written with the keyCompromise revocation.
CREATE TABLE compromised_keys (
    spki_sha256 bytea PRIMARY KEY CHECK (octet_length(spki_sha256) = 32),
    issuer      text NOT NULL,
    serial      bytea NOT NULL,
    at          timestamptz NOT NULL
);

-- Working table: one row for each CRL scope. The fence rises with each claim and the number never falls: a trigger refuses both.
CREATE TABLE crl_scopes (
    issuer           text NOT NULL,
    scope            text NOT NULL,
    last_number      numeric(48, 0) NOT NULL DEFAULT 0 CHECK (last_number >= 0), -- the highest ever intended
    fence            bigint NOT NULL DEFAULT 0,
    holder           text,                     -- null: nobody holds the claim
    lease_until      timestamptz NOT NULL DEFAULT '-infinity',
    published_number numeric(48, 0),           -- null before the first CRL
    this_update      timestamptz,
    next_update      timestamptz,
    PRIMARY KEY (issuer, scope)
);

-- Working table: revocations that no CRL shows yet.
CREATE TABLE crl_pending (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer text NOT NULL,
    scope  text NOT NULL,
    serial bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX crl_pending_scope ON crl_pending (issuer, scope);

-- Facts: to-be-signed CRLs, each durable before a key was asked.
CREATE TABLE crl_intents (
    issuer     text NOT NULL,
    scope      text NOT NULL,
    number     numeric(48, 0) NOT NULL CHECK (number > 0),
    tbs_sha256 bytea NOT NULL CHECK (octet_length(tbs_sha256) = 32),
    fence      bigint NOT NULL,
    owner_name text NOT NULL,
    owner_run  text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (issuer, scope, number)
);

-- Facts: signed CRLs. The current one of a scope has the highest number.
CREATE TABLE crls (
    issuer      text NOT NULL,
    scope       text NOT NULL,
    number      numeric(48, 0) NOT NULL CHECK (number > 0),
    der         bytea NOT NULL,
    this_update timestamptz NOT NULL,
    next_update timestamptz NOT NULL,
    entries     integer NOT NULL,
    event_id    uuid NOT NULL,
    PRIMARY KEY (issuer, scope, number)
);

-- Facts: canonical audit leaves. They have no order of their own; the log's sequencer gives them one.
CREATE TABLE audit_leaves (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL,
    leaf       bytea NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);

-- API tokens, by digest. A token is withdrawn by setting revoked_at, and nothing else of it ever changes.
CREATE TABLE api_tokens (
    id         text PRIMARY KEY CHECK (id <> ''),
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    name       text NOT NULL,
    person     text NOT NULL,
    namespace  text NOT NULL,
    roles      text[] NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,                    -- null: never
    revoked_at timestamptz
);
