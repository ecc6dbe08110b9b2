-- Sessions of the console: who is signed in with a browser, on any replica. Programs from before this migration know nothing of them.

-- +goose Up

-- Working table: a session is found by the digest of its cookie, which itself is kept nowhere.
CREATE TABLE console_sessions (
    id         uuid PRIMARY KEY,
    sha256     bytea NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    actor_id   text NOT NULL CHECK (actor_id <> ''),
    actor      jsonb NOT NULL,                 -- as whoever signed the person in said it
    method     text NOT NULL CHECK (method IN ('oidc', 'token')),
    provider   text NOT NULL,                  -- the issuer of the identity; empty for a token
    token_id   text CHECK ((token_id IS NOT NULL) = (method = 'token')), -- the session ends with it
    idle       interval NOT NULL,              -- it ends when so long nothing was asked
    opened_at  timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,           -- it ends then in any case
    ended_at   timestamptz                     -- null: nobody ended it
) WITH (fillfactor = 70);
CREATE INDEX console_sessions_by_actor ON console_sessions (actor_id);
CREATE INDEX console_sessions_by_expiry ON console_sessions (expires_at);

-- Working table: links by which the owner of an API token signs in to the console, each once.
CREATE TABLE console_logins (
    sha256     bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),
    token_id   text NOT NULL,
    offered_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    session_id uuid                            -- that it led to; null: it was not used
);
CREATE INDEX console_logins_by_expiry ON console_logins (expires_at);

GRANT SELECT, INSERT, DELETE, UPDATE (seen_at, ended_at) ON console_sessions TO chancery_service;
GRANT SELECT, INSERT, DELETE, UPDATE (session_id) ON console_logins TO chancery_service;
