package storage

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/reconcile"
)

// What is on record of signatures, one statement for each source. The first argument is the moment from which on records are wanted: as an
// identifier, a serial number or a time, whichever the table is in the order of.
const (
	selectSigningLeaves = `
	SELECT leaf FROM audit_leaves WHERE id >= $1::text::uuid AND kind IN ('certificate.intended', 'crl.intended', 'key.signed')`

	selectSignedCertificates = `SELECT serial, issuer, kind, issued_at, der FROM certificates WHERE serial >= $1`

	selectOrphanedCertificates = `SELECT serial, issuer, kind, intended_at, tbs FROM orphans WHERE intended_at >= $1`

	selectOpenCertificates = `SELECT serial, issuer, kind, created_at, tbs FROM intents WHERE created_at >= $1`

	// A CRL that was superseded long ago is kept without its octets: what was signed, its intent tells. One that was signed elsewhere has
	// none.
	selectSignedCRLs = `
	SELECT i.issuer, i.scope, i.number::text, i.at, i.tbs_sha256,
		EXISTS (SELECT FROM crls AS c WHERE c.issuer = i.issuer AND c.scope = i.scope AND c.number = i.number)
		OR EXISTS (SELECT FROM crl_deltas AS d WHERE d.issuer = i.issuer AND d.scope = i.scope AND d.number = i.number)
	FROM crl_intents AS i WHERE i.at >= $1`

	selectSignedCheckpoints = `SELECT size::text, at, note FROM audit_checkpoints WHERE at >= $1`

	selectOwnRequests = `SELECT id::text, at, csr FROM requests WHERE id >= $1::text::uuid AND profile = $2 AND csr IS NOT NULL`

	// selectLostLeaves are the events of certificates that were lost with a database: no other revocation's event tells a scope.
	selectLostLeaves = `
	SELECT id::text, leaf FROM audit_leaves AS l WHERE id >= $1::text::uuid AND kind = 'certificate.revoked'
		AND position('"crl_scope":'::bytea IN leaf) > 0` + frequentKinds + ` ORDER BY id`

	selectIsRevokedBy = `SELECT EXISTS (SELECT FROM revocations WHERE issuer = $1 AND serial = $2 AND event_id = $3::text::uuid)`

	selectUnissued = `
	SELECT s FROM unnest($1::bytea[]) AS s
	WHERE NOT EXISTS (SELECT FROM certificates AS c WHERE c.serial = s)
		AND NOT EXISTS (SELECT FROM orphans AS o WHERE o.serial = s)
		AND NOT EXISTS (SELECT FROM intents AS i WHERE i.serial = s)
		AND NOT EXISTS (SELECT FROM imported_certificates AS m WHERE m.serial = s)
		AND NOT EXISTS (SELECT FROM archives AS a WHERE s >= a.serials_from AND s < a.serials_until)
		AND NOT EXISTS ( -- of a certificate that was lost with a database there is its revocation alone
			SELECT FROM authorities AS a WHERE EXISTS (SELECT FROM revocations AS r WHERE r.issuer = a.name AND r.serial = s))`

	// selectCertifiedAuthorities are those whose certificates another signed, in a ceremony. They are few.
	selectCertifiedAuthorities = `SELECT certificate FROM authorities WHERE parent <> ''`
)

// SigningRecords calls yield with all that is on record of signatures since a moment, in no order, as it was at one moment of this call. An
// error of yield's ends it, and is returned. What archives hold is not among it.
func (s *Store) SigningRecords(ctx context.Context, since time.Time, yield func(reconcile.Record) error) error {
	_, err := s.tryTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, longStatement+"; SET LOCAL enable_seqscan = on"); err != nil {
			return err
		}
		for _, read := range []func(context.Context, pgx.Tx, time.Time, func(reconcile.Record) error) error{
			signingLeaves, signedCertificates, signedCRLs, signedCheckpoints, ownRequests,
		} {
			if err := read(ctx, tx, since, yield); err != nil {
				return err
			}
		}
		return nil
	})
	return describe("reading what is on record of signatures", err)
}

// signingLeaf is what is read of a leaf that tells of a signature.
type signingLeaf struct {
	Kind audit.Kind `json:"kind"`
	Time string     `json:"time"`
	Data struct {
		Issuer    string `json:"issuer"`
		Authority string `json:"authority"`
		Serial    string `json:"serial"`
		Kind      string `json:"kind"`
		Scope     string `json:"scope"`
		Number    string `json:"number"`
		TBS       string `json:"tbs_sha256"`
	} `json:"data"`
}

func signingLeaves(ctx context.Context, tx pgx.Tx, since time.Time, yield func(reconcile.Record) error) error {
	return each(ctx, tx, selectSigningLeaves, []any{idBound(since, 0)}, func(rows pgx.Rows) error {
		var canonical []byte
		if err := rows.Scan(&canonical); err != nil {
			return err
		}
		return yield(ofLeaf(canonical))
	})
}

// ofLeaf reads a leaf. One that does not read as it should is an event of a signature that nobody made, so that it is found. Whether a leaf
// is what was written, the log's own verification tells.
func ofLeaf(canonical []byte) reconcile.Record {
	var l signingLeaf
	r := reconcile.Record{Source: reconcile.IntentEvent, Digest: sha256.Sum256(canonical), Subject: "an event that cannot be read"}
	if json.Unmarshal(canonical, &l) != nil {
		return r
	}
	r.At, _ = time.Parse(audit.TimeFormat, l.Time) // else the zero time, which a whole account judges
	digest, err := hex.DecodeString(l.Data.TBS)
	if err != nil || len(digest) != len(r.Digest) || l.Kind != audit.KeySigned && l.Kind != audit.CRLIntended && l.Data.Serial == "" {
		return r // without a serial number it would account for a certificate with any
	}
	r.Digest = [32]byte(digest)
	switch l.Kind {
	case audit.KeySigned:
		r.Source, r.Subject = reconcile.SignedEvent, "signed for "+l.Data.Authority
	case audit.CRLIntended:
		r.Kind, r.Subject, r.Issuer = reconcile.CRL, ofCRL(l.Data.Issuer, l.Data.Scope, l.Data.Number), l.Data.Issuer
	default:
		r.Kind = reconcile.Certificate
		r.Subject = reconcile.CertificateName(l.Data.Kind, l.Data.Issuer, l.Data.Serial)
		r.Issuer, r.Serial = l.Data.Issuer, l.Data.Serial
	}
	return r
}

func ofCRL(issuer, scope, number string) string {
	return "CRL " + number + " of " + strings.TrimSuffix(issuer+"/"+scope, "/")
}

// signedCertificates reads the certificates, and the intents that are open or were settled without one.
func signedCertificates(ctx context.Context, tx pgx.Tx, since time.Time, yield func(reconcile.Record) error) error {
	known, err := readListedBy(ctx, tx)
	if err != nil {
		return err
	}
	low, _ := issuance.SerialBounds(later(since, time.UnixMilli(0)), since)
	for _, from := range []struct {
		sql    string
		bound  any
		source reconcile.Source
	}{
		{selectSignedCertificates, low[:], reconcile.SignedRow},
		{selectOrphanedCertificates, since, reconcile.IntentRow},
		{selectOpenCertificates, since, reconcile.IntentRow},
	} {
		err := each(ctx, tx, from.sql, []any{from.bound}, func(rows pgx.Rows) error {
			var serial, der []byte
			var issuer, kind string
			r := reconcile.Record{Source: from.source, Kind: reconcile.Certificate}
			if err := rows.Scan(&serial, &issuer, &kind, &r.At, &der); err != nil {
				return err
			}
			if from.source == reconcile.SignedRow {
				r = reconcile.SignedCertificate(kind, issuer, serial, der, r.At)
				r.Misplaced = known.misplaced(issuer, serial, toBeSigned(der)) != nil
				return yield(r)
			}
			r.Issuer, r.Serial = issuer, hex.EncodeToString(serial)
			r.Misplaced = known.misplaced(issuer, serial, der) != nil
			r.Digest, r.Subject = sha256.Sum256(der), reconcile.CertificateName(kind, issuer, r.Serial)
			return yield(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func signedCRLs(ctx context.Context, tx pgx.Tx, since time.Time, yield func(reconcile.Record) error) error {
	return each(ctx, tx, selectSignedCRLs, []any{since}, func(rows pgx.Rows) error {
		var issuer, scope, number string
		var digest []byte
		var signed bool
		r := reconcile.Record{Source: reconcile.IntentRow, Kind: reconcile.CRL}
		if err := rows.Scan(&issuer, &scope, &number, &r.At, &digest, &signed); err != nil {
			return err
		}
		r.Digest, r.Subject, r.Issuer = [32]byte(digest), ofCRL(issuer, scope, number), issuer
		if err := yield(r); err != nil || !signed {
			return err
		}
		r.Source = reconcile.SignedRow
		return yield(r)
	})
}

// signedCheckpoints reads the checkpoints of the audit log. What is signed of a note is its text, which an empty line ends (C2SP
// signed-note).
func signedCheckpoints(ctx context.Context, tx pgx.Tx, since time.Time, yield func(reconcile.Record) error) error {
	return each(ctx, tx, selectSignedCheckpoints, []any{since}, func(rows pgx.Rows) error {
		var size, note string
		r := reconcile.Record{Source: reconcile.CheckpointRow, Kind: reconcile.Checkpoint}
		if err := rows.Scan(&size, &r.At, &note); err != nil {
			return err
		}
		text, _, _ := strings.Cut(note, "\n\n")
		r.Digest, r.Subject = sha256.Sum256([]byte(text+"\n")), "checkpoint of "+size+" entries"
		return yield(r)
	})
}

// ownRequests reads the requests for certificates of OCSP responders, which the responders' own keys sign.
func ownRequests(ctx context.Context, tx pgx.Tx, since time.Time, yield func(reconcile.Record) error) error {
	return each(ctx, tx, selectOwnRequests, []any{idBound(since, 0), ca.ResponderProfile}, func(rows pgx.Rows) error {
		var id string
		var der []byte
		r := reconcile.Record{Source: reconcile.OtherRow, Kind: reconcile.Request}
		if err := rows.Scan(&id, &r.At, &der); err != nil {
			return err
		}
		r.Digest, r.Subject = reconcile.SignedPart(der), "request "+id
		return yield(r)
	})
}

// LostCertificates are the records, since a moment, of certificates that were lost with a database: each has its revocation and its
// event, and both say the same.
func (s *Store) LostCertificates(ctx context.Context, since time.Time) (lost []reconcile.Lost, err error) {
	_, err = s.tryTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, longStatement); err != nil {
			return err
		}
		var told []audit.Event
		err := each(ctx, tx, selectLostLeaves, []any{idBound(since, 0)}, func(rows pgx.Rows) error {
			var id string
			var canonical []byte
			if err := rows.Scan(&id, &canonical); err != nil {
				return err
			}
			if e, err := audit.Parse(canonical); err == nil && e.ID == id && e.Data["crl_scope"] != "" {
				told = append(told, e)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, e := range told {
			l := reconcile.Lost{Issuer: e.Data["issuer"], Serial: e.Data["serial"], At: e.Time}
			serial, err := hex.DecodeString(l.Serial)
			if err != nil {
				continue
			}
			var revoked bool
			if err := tx.QueryRow(ctx, selectIsRevokedBy, askable(l.Issuer), serial, e.ID).Scan(&revoked); err != nil {
				return err
			}
			if l.Signed, err = digestsIn(e.Data["tbs_sha256"]); err == nil && revoked {
				lost = append(lost, l)
			}
		}
		return nil
	})
	return lost, describe("reading what is on record of lost certificates", err)
}

// digestsIn reads the digests that an event tells, with commas between them.
func digestsIn(text string) (digests [][32]byte, err error) {
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ",") {
		octets, err := hex.DecodeString(one)
		if err != nil || len(octets) != 32 {
			return nil, fmt.Errorf("%q is no digest", one)
		}
		digests = append(digests, [32]byte(octets))
	}
	return digests, nil
}

// each reads row by row, so that a million of them take no memory.
func each(ctx context.Context, tx pgx.Tx, sql string, args []any, row func(pgx.Rows) error) error {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Unissued tells which of some serial numbers no authority has issued, nor may have. What is in an archived month counts as issued, and so
// does the certificate of an authority, which is on record with the authority alone.
func (s *Store) Unissued(ctx context.Context, serials [][]byte) (never [][]byte, err error) {
	err = s.read(ctx, "looking for serial numbers", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectUnissued, serials)
		if err != nil {
			return err
		}
		if never, err = pgx.CollectRows(rows, pgx.RowTo[[]byte]); err != nil || len(never) == 0 {
			return err
		}
		if rows, err = db.Query(ctx, selectCertifiedAuthorities); err != nil {
			return err
		}
		certified, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
		if err != nil {
			return err
		}
		of := map[string]bool{}
		for _, der := range certified {
			if c, err := x509.ParseCertificate(der); err == nil {
				of[string(c.SerialNumber.Bytes())] = true
			}
		}
		never = slices.DeleteFunc(never, func(serial []byte) bool { return of[string(serial)] })
		return nil
	})
	return never, err
}
