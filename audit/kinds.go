package audit

import (
	"slices"
	"strings"
)

// KindInfo documents a kind of event: what has happened, and what its data say. Fields whose names end in Salted are digests of private texts.
type KindInfo struct {
	Kind   Kind
	What   string
	Fields []string
}

// Tells tells whether an event of the kind may have a field: one that is listed, or begins as one that is listed with "…" at its end, or the
// replica, which stands in the events of a service whatever their kind.
func (k KindInfo) Tells(field string) bool {
	return field == "replica" || slices.ContainsFunc(k.Fields, func(f string) bool {
		beginning, open := strings.CutSuffix(f, "…")
		return f == field || open && strings.HasPrefix(field, beginning)
	})
}

// Kinds are all kinds of event, in the order of the constants. docs/audit.md is made of them.
func Kinds() []KindInfo {
	fields := func(names ...string) []string { return names }
	return []KindInfo{
		{RequestRefused, "a policy refused a request", fields("request", "profile", "policy", "rules", "csr_sha256", "spki_sha256")},
		{RequestWaiting, "a request needs approval, and waits for it", fields("request", "profile", "policy", "csr_sha256", "binding", "approvals", "expires")},
		{RequestApproved, "a person approved a request that waits", fields("request", "person_salted", "binding", "profile", "csr_sha256", "comment_salted", "key", "evidence_sha256")},
		{RequestRejected, "a person rejected it; it waits no more", fields("request", "person_salted", "binding", "profile", "csr_sha256", "comment_salted", "key", "evidence_sha256")},
		{RequestExpired, "it waited for too long", fields("request", "profile", "csr_sha256", "expired")},
		{AccessDenied, "an actor tried what its roles do not allow", fields("action", "kind", "id", "namespace")},
		{CertificateIntended, "a to-be-signed certificate became durable; its serial number is revocable from here", fields("issuer", "serial", "kind", "tbs_sha256", "request", "profile", "policy", "csr_sha256")},
		{CertificateIssued, "the signed certificate became durable", fields("issuer", "serial", "kind", "certificate_sha256", "request", "profile", "policy", "not_after", "logs")},
		{CertificateOrphaned, "an intent was settled as possibly signed, and its serial number revoked", fields("issuer", "serial", "kind", "owner", "request", "why")},
		{CertificateRevoked, "a certificate was revoked, or put on hold", fields("issuer", "serial", "reason", "comment_salted", "invalidity_date", "job", "authority", "crl_scope", "tbs_sha256")},
		{CertificateReleased, "a hold ended (removeFromCRL)", fields("issuer", "serial", "reason", "comment_salted", "job")},
		{KeyCompromised, "a key turned out to be compromised after its certificate was revoked for another reason, or had expired", fields("issuer", "serial", "spki_sha256", "authority", "job")},
		{RevocationOrdered, "many certificates are to be revoked by one order", fields("job", "reason", "person_salted", "comment_salted", "certificates", "certificates_sha256", "keys", "needs", "select_…")},
		{RevocationApproved, "a person agreed to such an order", fields("job", "person_salted", "certificates_sha256", "comment_salted", "key", "evidence_sha256")},
		{RevocationRejected, "a person ended it before it began", fields("job", "person_salted", "certificates_sha256", "comment_salted", "key", "evidence_sha256")},
		{RevocationCancelled, "it was ended half way; what was revoked stays revoked", fields("job", "person_salted")},
		{RevocationFinished, "all of its certificates were seen to", fields("job", "reason", "certificates_sha256", "revoked", "already", "expired", "refused", "remembered")},
		{CRLIntended, "a to-be-signed CRL became durable", fields("issuer", "scope", "number", "tbs_sha256")},
		{CRLPublished, "a signed CRL became the current one of its scope", fields("issuer", "scope", "number", "crl_sha256", "entries", "this_update", "next_update", "base")},
		{CRLImported, "a CRL signed elsewhere became the current one of its scope", fields("issuer", "scope", "number", "crl_sha256", "entries", "this_update", "next_update")},
		{KeySigned, "a key in a token made a signature; it rides with what was signed", fields("authority", "key", "mechanism", "tbs_sha256", "microseconds")},
		{HSMOperation, "an operation on a token other than a signature of an authority", fields("op", "result", "token", "token_label", "microseconds", "key_label", "key_id", "target_label", "target_id", "mechanism", "user", "input_digest", "input_hash", "session")},
		{AuthorityAdded, "an authority was registered", fields("authority", "parent", "certificate_sha256", "token", "key_label", "key_id", "online")},
		{TokenCreated, "an API token was created", fields("token", "name_salted", "person_salted", "roles", "expires_at", "profiles", "networks")},
		{TokenRevoked, "an API token was withdrawn", fields("token", "name_salted", "person_salted", "roles", "expires_at", "profiles", "networks")},
		{NamespaceChanged, "a namespace was set or removed, through the API or in the configuration file", fields("name", "change", "version", "source", "definition_sha256")},
		{PolicyActivated, "a policy set began to decide", fields("policy", "number", "proposal", "comment_salted")},
		{PolicyProposed, "a policy set was proposed, and waits for approvals", fields("proposal", "policy", "replaces", "needs", "person_salted", "comment_salted")},
		{PolicyApproved, "a person agreed to a proposed policy set", fields("proposal", "policy", "person_salted", "comment_salted", "key", "evidence_sha256")},
		{PolicyRejected, "a person ended a proposal", fields("proposal", "policy", "person_salted", "comment_salted", "key", "evidence_sha256")},
		{ServiceStarted, "a replica began to serve", fields("run", "policy", "version", "token")},
		{ServiceStopped, "a replica stopped in good order", fields("run", "policy", "version", "token")},
		{ArchiveMade, "a month of certificates left the database for a file", fields("month", "file", "sha256", "certificates", "requests", "first_serial", "last_serial")},
		{LogKeyAdded, "a key began to sign the checkpoints of this log", fields("verifier")},
		{LogSearched, "somebody searched the audit log", fields("by", "namespace", "kind", "serial")},
		{TokenRotated, "an API token got a successor, and ends with the overlap", fields("token", "name_salted", "person_salted", "roles", "expires_at", "profiles", "networks", "replaces", "retires_at")},
		{IdentityUsed, "an actor called, for the first time in an hour on this replica", fields("means", "person_salted", "roles")},
		{GlassBroken, "a local administrator came in by a rule for emergencies, and says why", fields("means", "person_salted", "roles", "comment_salted")},
		{GuessingSeen, "credentials that are not good came from one network again and again", fields("from", "failures")},
		{SessionOpened, "a person signed in to the console", fields("session", "method", "provider", "token", "name_salted", "person_salted")},
		{SessionEnded, "a person signed out of it", fields("session")},
		{RequestExpiring, "a request has waited for long, and will soon wait no more", fields("request", "profile", "expires")},
		{ApproverKeyAdded, "the key of a person who approves was registered", fields("person_salted", "name_salted", "key", "form", "public_sha256")},
		{ApproverKeyEnded, "it counts no more", fields("key", "comment_salted")},
		{OrderPlaced, "something that cannot be undone is to be done, and waits for approvals", fields("order", "kind", "binding", "needs", "person_salted", "comment_salted", "expires", "what_…")},
		{OrderApproved, "a person agreed to it", fields("order", "kind", "binding", "person_salted", "comment_salted", "key", "evidence_sha256")},
		{OrderRejected, "a person ended it", fields("order", "kind", "binding", "person_salted", "comment_salted", "key", "evidence_sha256")},
		{OrderUsed, "it was begun to be carried out", fields("order", "kind", "binding")},
		{ReconcileAlarm, "a signature, a record of one, or a keeper's journal, does not agree with the others", fields("finding", "why", "sha256", "subject", "journal", "key", "entry")},
		{ReconcileDone, "signatures were accounted for: how many, up to which entry of each journal", fields("until", "signatures", "records", "agreeing", "restored", "findings", "journal.…")},
		{PrivateErased, "private texts of events were erased", fields("texts", "fields", "events")},
	}
}
