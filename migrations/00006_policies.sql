-- The life of policies: every set that was proposed or ruled, with its whole files; who proposed it, who agreed, and since when it rules.
-- All of it is facts. Programs from before this migration go on working beside it.

-- +goose Up

-- Facts: policy sets. The digest is that of the files' names and contents.
CREATE TABLE policy_sets (
    digest   text PRIMARY KEY CHECK (digest <> ''),
    names    text[] NOT NULL CHECK (cardinality(names) > 0),
    contents bytea[] NOT NULL CHECK (cardinality(contents) = cardinality(names)),
    kept_at  timestamptz NOT NULL DEFAULT now()
);

-- Facts: proposals to have a set rule, where persons must agree to it.
CREATE TABLE policy_proposals (
    id         uuid PRIMARY KEY,
    digest     text NOT NULL REFERENCES policy_sets,
    replaces   text NOT NULL,                  -- the digest that ruled: when another does, the proposal is void
    needs      integer NOT NULL CHECK (needs >= 1),
    actor_id   text NOT NULL,
    actor_name text NOT NULL,
    person     text NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    event_id   uuid NOT NULL
);

-- Facts: what persons say to a proposal, each once.
CREATE TABLE policy_votes (
    proposal   uuid NOT NULL REFERENCES policy_proposals,
    person     text NOT NULL CHECK (person <> ''),
    approves   boolean NOT NULL,
    actor_id   text NOT NULL,
    actor_name text NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    event_id   uuid NOT NULL,
    PRIMARY KEY (proposal, person)
);

-- Facts: which set rules since when. The highest number rules; each is one more than the last, so that of two changes at once one fails.
CREATE TABLE policy_activations (
    number     bigint PRIMARY KEY CHECK (number >= 1),
    digest     text NOT NULL REFERENCES policy_sets,
    proposal   uuid UNIQUE REFERENCES policy_proposals, -- null: no approval was needed
    actor_id   text NOT NULL,
    actor_name text NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    event_id   uuid NOT NULL                   -- of the policy.activated leaf
);

GRANT SELECT, INSERT ON policy_sets, policy_proposals, policy_votes, policy_activations TO chancery_service;

-- Requests of the past are read in the order of their identifiers, a page at a time, with the certificates that came of them. Both tables
-- grow in about that order; where a certificate came late, its identifier is an outlier that this kind of summary bears.
CREATE INDEX certificates_request ON certificates USING brin (request_id uuid_minmax_multi_ops) WITH (autosummarize = on);

-- +goose StatementBegin
DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['policy_sets', 'policy_proposals', 'policy_votes', 'policy_activations']
    LOOP
        EXECUTE format('CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
        EXECUTE format('CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END
$$;
-- +goose StatementEnd
