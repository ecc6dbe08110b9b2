-- API tokens get a scope, a successor and a trace of their use; and operators that were made by programs
-- which knew no policy admins (created_by is empty) stay policy admins too, so that nobody loses by the upgrade what a token could do. Programs
-- from before this migration go on working beside it: they neither read nor write the new columns. Until the last of them is gone, they
-- take no notice of a token's scope and of the end of its overlap; so give none out before.

-- +goose Up

ALTER TABLE api_tokens
    ADD COLUMN profiles       text[] NOT NULL DEFAULT '{}', -- the only ones it asks for certificates under; empty: no bound
    ADD COLUMN networks       text[] NOT NULL DEFAULT '{}', -- the only prefixes it is used from; empty: no bound
    ADD COLUMN created_by     text NOT NULL DEFAULT '',     -- empty: before this was kept
    ADD COLUMN replaces       text,                         -- the token that it was rotated from
    ADD COLUMN retires_at     timestamptz,                  -- when it was rotated: the end of the overlap
    ADD COLUMN last_used_at   timestamptz,                  -- to about a minute
    ADD COLUMN last_used_from text;                         -- an address

GRANT UPDATE (retires_at, last_used_at, last_used_from) ON api_tokens TO chancery_service;

-- One rotation of a token at most: who asks twice gets one successor.
CREATE UNIQUE INDEX api_tokens_replaces ON api_tokens (replaces) WHERE replaces IS NOT NULL;
