package storage_test

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// written is a write that is about to be made, and how to recognise its commit and its traces.
type written struct {
	marker []byte // in the request that brings about the commit
	run    func(*storage.Store) error
	rows   string // what it adds one row to
	leaves int
}

// writes are all writes of the store. Each prepares what it needs through an undisturbed store.
func writes(f *fixture) map[string]func() written {
	t, ctx := f.t, context.Background()
	commit := []byte("commit\x00")
	return map[string]func() written{
		"RecordIntent": func() written {
			i, l := newIntent(t, alpha), leaf(t, audit.CertificateIntended)
			i.Idempotency = ca.IdempotencyKey{Actor: "actor-1", Key: i.Request.ID}
			return written{
				i.Serial[:], func(s *storage.Store) error { return s.RecordIntent(ctx, i, l) },
				fmt.Sprintf(`intents WHERE serial = '\x%s'`, i.Serial), 1,
			}
		},
		"RecordCertificate": func() written {
			c := certificateOf(f.intend())
			return written{c.Serial[:], func(s *storage.Store) error {
				return s.RecordCertificate(ctx, c, leafWithID(t, c.EventID, audit.CertificateIssued))
			}, fmt.Sprintf(`certificates WHERE serial = '\x%s'`, c.Serial), 1}
		},
		"SettleIntent": func() written {
			i := f.intend()
			o := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID()}
			return written{i.Serial[:], func(s *storage.Store) error {
				return s.SettleIntent(ctx, alpha, o, leafWithID(t, o.EventID, audit.CertificateOrphaned))
			}, fmt.Sprintf(`orphans JOIN revocations USING (issuer, serial) WHERE serial = '\x%s'`, i.Serial), 1}
		},
		"RecordRefusal": func() written {
			r, l := newRequest(), leaf(t, audit.RequestRefused)
			return written{
				[]byte(r.ID), func(s *storage.Store) error { return s.RecordRefusal(ctx, r, l) },
				fmt.Sprintf(`requests WHERE id = '%s'`, r.ID), 1,
			}
		},
		"RecordEvents": func() written {
			l := leaf(t, audit.ServiceStarted)
			return written{
				l.Bytes(), func(s *storage.Store) error { return s.RecordEvents(ctx, l) },
				fmt.Sprintf(`audit_leaves WHERE id = '%s'`, l.ID()), 1,
			}
		},
		"RecordRevocation": func() written {
			r := revocationOf(f.issue(), issuance.KeyCompromise)
			return written{commit, func(s *storage.Store) error {
				recorded, err := s.RecordRevocation(ctx, r, 0, leafWithID(t, r.EventID, audit.CertificateRevoked))
				if err == nil && (recorded.EventID != r.EventID || recorded.Sequence != 1) {
					t.Errorf("recorded %+v", recorded)
				}
				return err
			}, fmt.Sprintf(`revocations WHERE event_id = '%s'`, r.EventID), 1}
		},
		"RecordAuthority": func() written {
			a, l := newAuthority(newID()), leaf(t, audit.AuthorityAdded)
			return written{
				commit, func(s *storage.Store) error { return s.RecordAuthority(ctx, a, l) },
				fmt.Sprintf(`authorities WHERE name = '%s'`, a.Name), 1,
			}
		},
		"RecordCRLIntent": func() written {
			i, l := crlIntent(f.claim(f.addAuthority(newID()).Name), alpha), leaf(t, audit.CRLIntended)
			return written{
				commit, func(s *storage.Store) error { return s.RecordCRLIntent(ctx, i, l) },
				fmt.Sprintf(`crl_intents WHERE issuer = '%s'`, i.Issuer), 1,
			}
		},
		"RecordCRL": func() written {
			claim := f.claim(f.addAuthority(newID()).Name)
			if err := f.RecordCRLIntent(ctx, crlIntent(claim, alpha)); err != nil {
				t.Fatal(err)
			}
			r := ca.CRLRecord{
				Issuer: claim.Issuer, Scope: claim.Scope, Number: next(claim), DER: []byte("CRL"), ThisUpdate: now(),
				NextUpdate: now(), EventID: newID(),
			}
			l := leafWithID(t, r.EventID, audit.CRLPublished)
			return written{
				commit, func(s *storage.Store) error { return s.RecordCRL(ctx, r, claim.Fence, l) },
				fmt.Sprintf(`crls WHERE issuer = '%s'`, r.Issuer), 1,
			}
		},
		"ImportCRL": func() written {
			r := ca.CRLRecord{
				Issuer: newID(), Scope: ca.FullScope, Number: big.NewInt(8), DER: []byte("CRL"), ThisUpdate: now(),
				NextUpdate: now(), EventID: newID(),
			}
			l := leafWithID(t, r.EventID, audit.CRLImported)
			return written{
				commit, func(s *storage.Store) error { return s.ImportCRL(ctx, r, nil, l) },
				fmt.Sprintf(`crls WHERE issuer = '%s'`, r.Issuer), 1,
			}
		},
		"CreateToken": func() written {
			token, digest := newToken("ci"), random32()
			l := leaf(t, audit.TokenCreated)
			return written{
				commit, func(s *storage.Store) error { return s.CreateToken(ctx, token, digest, l) },
				fmt.Sprintf(`api_tokens WHERE id = '%s'`, token.ID), 1,
			}
		},
		"RotateToken": func() written {
			old, next, digest := newToken("ci"), newToken("ci"), random32()
			if err := f.CreateToken(ctx, old, random32()); err != nil {
				t.Fatal(err)
			}
			next.Replaces = old.ID
			l := leaf(t, audit.TokenRotated)
			return written{
				commit, func(s *storage.Store) error { return s.RotateToken(ctx, next, digest, now().Add(time.Hour), l) },
				fmt.Sprintf(`api_tokens o JOIN api_tokens n ON n.replaces = o.id WHERE o.id = '%s' AND o.retires_at IS NOT NULL`, old.ID), 1,
			}
		},
		"RevokeToken": func() written {
			token, l := newToken("ci"), leaf(t, audit.TokenRevoked)
			if err := f.CreateToken(ctx, token, random32()); err != nil {
				t.Fatal(err)
			}
			return written{
				commit, func(s *storage.Store) error { return s.RevokeToken(ctx, token.ID, l) },
				fmt.Sprintf(`api_tokens WHERE id = '%s' AND revoked_at IS NOT NULL`, token.ID), 1,
			}
		},
	}
}

// When the answer to a commit is lost, the store finds out that it happened, and says so; when the commit never reached the server, it
// says that it does not know, writes nothing twice, and the same write succeeds later.
func TestLostAnswers(t *testing.T) {
	f := setUp(t)
	p, through := storagetest.NewProxy(t, f.db.URL)
	disturbed, err := storage.Open(context.Background(), storage.Config{URL: through, Unsafe: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disturbed.Close)
	for name, prepare := range writes(f) {
		for fault, happened := range map[storagetest.Fault]bool{
			storagetest.LoseReply: true, storagetest.LoseAck: true,
			storagetest.LoseRequest: false,
		} {
			t.Run(fmt.Sprintf("%s/%d", name, fault), func(t *testing.T) {
				w := prepare()
				leaves := f.count("audit_leaves")
				p.Arm(fault, w.marker)
				err := w.run(disturbed)
				if p.Met() == 0 {
					t.Fatal("the fault was not met")
				}
				if happened && err != nil {
					t.Errorf("the commit happened, and the store says %v", err)
				}
				if !happened && !errors.Is(err, ca.ErrUnavailable) {
					t.Errorf("the commit did not happen, and the store says %v", err)
				}
				if !happened {
					f.wantCounts(w.rows, 0, "audit_leaves", leaves)
					if err := w.run(disturbed); err != nil {
						t.Errorf("trying later: %v", err)
					}
				}
				f.wantCounts(w.rows, 1, "audit_leaves", leaves+w.leaves)
			})
		}
	}
}

// A batch commits with its end. Answers to all of its statements are no commit: a server that dies then has written nothing.
func TestAnswersToStatementsAreNoCommit(t *testing.T) {
	f := setUp(t)
	p, through := storagetest.NewProxy(t, f.db.URL)
	disturbed, err := storage.Open(context.Background(), storage.Config{URL: through, Unsafe: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disturbed.Close)
	i := newIntent(t, alpha)
	p.Arm(storagetest.LoseSync, i.Serial[:])
	if err := disturbed.RecordIntent(context.Background(), i); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("RecordIntent = %v, want ErrUnavailable", err)
	}
	if p.Met() == 0 {
		t.Fatal("the fault was not met")
	}
	f.wantCounts("intents", 0, "requests", 0)
}

// Claims whose answer was lost are not taken for granted; they come again.
func TestLostClaims(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	p, through := storagetest.NewProxy(t, f.db.URL)
	disturbed, err := storage.Open(ctx, storage.Config{URL: through, Unsafe: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disturbed.Close)
	f.addAuthority("issuing-1")
	since := at(t, f.Store)
	p.Arm(storagetest.LoseReply, []byte("commit\x00"))
	if _, err := disturbed.ClaimCRL(ctx,
		ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: beta, Lease: lease, Since: since}); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("ClaimCRL = %v, want ErrUnavailable", err)
	}
	if claim, err := disturbed.ClaimCRL(ctx,
		ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: beta, Lease: lease, Since: since}); err != nil || claim.Fence != 2 {
		t.Errorf("claiming again: %+v, %v", claim, err)
	}
	i := f.intend()
	f.exec(`UPDATE intents SET lease_until = now() - interval '1 second'`)
	p.Arm(storagetest.LoseReply, []byte("commit\x00"))
	if _, err := disturbed.ClaimExpiredIntents(ctx, beta, lease, 10); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("ClaimExpiredIntents = %v, want ErrUnavailable", err)
	}
	f.exec(`UPDATE intents SET lease_until = now() - interval '1 second'`) // the lost claim runs out
	if again, err := disturbed.ClaimExpiredIntents(ctx, beta, lease, 10); err != nil || len(again) != 1 || again[0].Serial != i.Serial {
		t.Errorf("claiming again: %+v, %v", again, err)
	}
}
