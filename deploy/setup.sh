#!/bin/sh
# Prepares a deployment: schema, token, ceremony, authorities, the root's CRL. docker-compose.yml runs it before the service starts, each
# time; what is there already is left as it is.
set -eu

config=/etc/chancery/chancery.yaml
plan=/etc/chancery/ceremony.yaml
secrets=/run/secrets
tokens=/var/lib/chancery/token
ceremony=/var/lib/chancery/ceremony
module=/usr/lib/softhsm/libsofthsm2.so
label=chancery
root=root
issuer=issuing-1
keeper=/var/lib/chancery/keeper
# What the service reads of the ceremony: nothing secret is in it.
public=/srv/chancery
log=audit-log
# What is done in the token before the keeper has it.
journal=$keeper/hsm-journal.jsonl

chancery migrate --config "$config" --database-url-file "$secrets/database_owner_url"

if [ -z "$(ls -A "$tokens")" ]; then
	chancery hsm init --module "$module" --label "$label" --so-pin-file "$secrets/so_pin" --pin-file "$secrets/pin" --journal "$journal"
fi

# The key of the audit log is the last that the ceremony makes.
if [ ! -e "$ceremony/$log.key.pem" ]; then
	if [ -n "$(ls -A "$ceremony")" ]; then
		echo "The first ceremony failed on its way; $ceremony/transcript.jsonl says how far it came. A ceremony is not resumed." >&2
		echo "If nothing was issued yet, start over: docker compose down --volumes" >&2
		exit 1
	fi
	chancery ceremony run "$plan" --module "$module" --token-label "$label" --pin-file "$secrets/pin" --output-dir "$ceremony" --journal "$journal" --yes
fi

# The issuer comes last: if it is there, the root and its CRL are too. The root's later CRLs are imported by hand, so this one must not
# be imported again.
if ! chancery authority list --config "$config" | grep -q "^$issuer "; then
	chancery authority add --config "$config" "$ceremony/$root.authority.json"
	chancery crl import --config "$config" --authority "$root" "$ceremony/$root.crl"
	chancery authority add --config "$config" "$ceremony/$issuer.authority.json"
fi
chancery authority list --config "$config"

cp "$ceremony/$log.key.pem" "$public/"
chmod 0644 "$public/$log.key.pem"

# The keeper reads only what is its own: files that somebody else could change are no policy.
umask 077
cp /etc/chancery/keeper.yaml /etc/chancery/keys.yaml "$ceremony/$issuer.pem" "$ceremony/$log.key.pem" "$keeper/"
