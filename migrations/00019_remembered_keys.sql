-- An order that revokes because keys are compromised remembers the keys of certificates too that were revoked before or have expired.
-- Programs from before this migration go on working beside it: where one works on such an order, it leaves those keys alone, remembered
-- stays below keys, and the same order again makes up for it.

-- +goose Up

ALTER TABLE revocation_jobs
    ADD COLUMN keys       integer NOT NULL DEFAULT 0, -- to be remembered, of certificates in the lots that stay as they are
    ADD COLUMN remembered integer NOT NULL DEFAULT 0; -- keys, of certificates that stayed as they were
GRANT UPDATE (remembered) ON revocation_jobs TO chancery_service;
