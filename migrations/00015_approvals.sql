-- Approvals that an approver's own key signs, orders for what cannot be undone, and how far the audit log has been delivered to each receiver.
-- Programs from before this migration go on working beside it: they record approvals without signatures, and deliver nothing.

-- +goose Up

-- Facts: the keys of approvers. The fingerprint is that of the key itself, whichever form it comes in, so that one key is one person's.
CREATE TABLE approver_keys (
    fingerprint text PRIMARY KEY CHECK (fingerprint <> ''),
    person      text NOT NULL CHECK (person <> ''),
    name        text NOT NULL,                 -- for people
    form        text NOT NULL CHECK (form IN ('ssh', 'x509')),
    public      bytea NOT NULL,                -- SSH's wire format, or a certificate in DER
    until       timestamptz,                   -- when the certificate ends; null: there is none
    actor       text NOT NULL,
    at          timestamptz NOT NULL,
    event_id    uuid NOT NULL
);
CREATE INDEX approver_keys_person ON approver_keys (person);

-- Facts: keys that count no more. What they signed before stays as it is.
CREATE TABLE approver_key_ends (
    fingerprint text PRIMARY KEY REFERENCES approver_keys,
    why         text NOT NULL,
    actor       text NOT NULL,
    at          timestamptz NOT NULL,
    event_id    uuid NOT NULL
);

-- Facts: signed words of persons, whole. The event is that of the approval or rejection, whose leaf holds the digest.
CREATE TABLE approval_evidence (
    event_id  uuid PRIMARY KEY,
    kind      text NOT NULL,                   -- of what was decided on
    subject   uuid NOT NULL,                   -- which
    person    text NOT NULL CHECK (person <> ''),
    key       text NOT NULL REFERENCES approver_keys (fingerprint),
    statement bytea NOT NULL,
    signature bytea NOT NULL
);
CREATE INDEX approval_evidence_subject ON approval_evidence (subject);

-- Facts: orders to do something that cannot be undone, at the keyboard of whoever may: to destroy a key, to take in an authority. What was
-- ordered is in the binding.
CREATE TABLE orders (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind <> ''),
    facts      jsonb NOT NULL,                 -- for people, and for the binding: an array of names and values
    binding    text NOT NULL,
    needs      integer NOT NULL CHECK (needs >= 1),
    signed     boolean NOT NULL,               -- approvals without evidence do not count
    actor      text NOT NULL,
    person     text NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    event_id   uuid NOT NULL
);

-- Facts: what persons say to an order, each once.
CREATE TABLE order_votes (
    order_id uuid NOT NULL REFERENCES orders,
    person   text NOT NULL CHECK (person <> ''),
    approves boolean NOT NULL,
    actor    text NOT NULL,
    comment  text NOT NULL,
    at       timestamptz NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (order_id, person)
);

-- Facts: orders that were begun to be carried out. Each is once: what fails after that needs another order.
CREATE TABLE order_uses (
    order_id uuid PRIMARY KEY REFERENCES orders,
    actor    text NOT NULL,
    at       timestamptz NOT NULL,
    event_id uuid NOT NULL
);

-- Working table: which entry of the audit log each receiver gets next.
CREATE TABLE delivery_cursors (
    receiver   text PRIMARY KEY CHECK (receiver <> ''),
    next_index bigint NOT NULL CHECK (next_index >= 0),
    moved_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- +goose StatementBegin
CREATE FUNCTION refuse_delivering_again() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NEW.next_index < OLD.next_index THEN
        RAISE EXCEPTION 'the cursor of receiver % only rises', OLD.receiver USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER cursors_rise BEFORE UPDATE ON delivery_cursors FOR EACH ROW EXECUTE FUNCTION refuse_delivering_again();

GRANT SELECT, INSERT ON approver_keys, approver_key_ends, approval_evidence, orders, order_votes, order_uses TO chancery_service;
GRANT SELECT, INSERT, UPDATE (next_index, moved_at) ON delivery_cursors TO chancery_service;

-- +goose StatementBegin
DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['approver_keys', 'approver_key_ends', 'approval_evidence', 'orders', 'order_votes', 'order_uses']
    LOOP
        EXECUTE format('CREATE TRIGGER facts_stay BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
        EXECUTE format('CREATE TRIGGER facts_stay_whole BEFORE TRUNCATE ON %I EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END
$$;
-- +goose StatementEnd
