-- OCSP: where an authority's responder is found. Programs from before this migration go on working beside it; what they issue does not
-- say where.

-- +goose Up

ALTER TABLE authorities ADD COLUMN ocsp_url text NOT NULL DEFAULT ''; -- empty: it offers none
