package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
)

// ApproverKey is the key of a person who approves.
type ApproverKey struct {
	Key     approval.Key
	Person  string
	Name    string // for people
	Actor   string // who registered it
	At      time.Time
	EventID string
	EndedAt time.Time // it counts no more; zero: it does
	Why     string    // it ended, for people
}

// Evidence is a person's signed word on one thing, as it is kept with it.
type Evidence struct {
	Kind, Subject string // what was decided on
	Person        string
	approval.Evidence
}

// EvidenceStore keeps the keys of approvers. What they sign is kept with the word that it goes with.
type EvidenceStore interface {
	// ApproverKeys are the keys of a person or, when that is empty, of all, those that count no more among them; oldest first.
	ApproverKeys(ctx context.Context, person string) ([]ApproverKey, error)
	// RecordApproverKey adds a key; ErrExists when the key is registered, for whomever, or was.
	RecordApproverKey(ctx context.Context, k ApproverKey, leaves ...audit.Leaf) error
	// EndApproverKey ends a key by its fingerprint; ErrNotFound, or ErrExists when it has ended.
	EndApproverKey(ctx context.Context, fingerprint, why, actor string, at time.Time, event string, leaves ...audit.Leaf) error
}

// AddApproverKey registers the key of a person who approves. Whoever does it answers for whose key it is. One key is one person's: it is
// refused (ErrExists) when anybody has it, in whichever form, or had it.
func (r Registrar) AddApproverKey(ctx context.Context, person, name string, key approval.Key) (ApproverKey, error) {
	k := ApproverKey{Key: key, Person: person, Name: name, Actor: r.Actor, At: r.Now(), EventID: r.NewID()}
	if until := key.Until(); !until.IsZero() && !k.At.Before(until) {
		return k, &InvalidError{Field: "key", Message: "the certificate ended on " + until.Format(time.RFC3339), Hint: "give one that holds"}
	}
	leaf, err := r.leafWithID(k.EventID, audit.ApproverKeyAdded, map[string]string{
		"person": person, "name": name, "key": key.Fingerprint(), "form": key.Form, "public_sha256": hexSHA256(key.Public),
	})
	if err != nil {
		return k, err
	}
	if err := r.Store.RecordApproverKey(ctx, k, leaf); err != nil {
		return k, fmt.Errorf("registering a key of %s: %w", person, err)
	}
	return k, nil
}

// EndApproverKey has a key count no more, from now on. Approvals that it signed before stay on record, and count no more for what is open.
func (r Registrar) EndApproverKey(ctx context.Context, fingerprint, why string) error {
	id, at := r.NewID(), r.Now()
	leaf, err := r.leafWithID(id, audit.ApproverKeyEnded, map[string]string{"key": fingerprint, "comment": why})
	if err != nil {
		return err
	}
	if err := r.Store.EndApproverKey(ctx, fingerprint, why, r.Actor, at, id, leaf); err != nil {
		return fmt.Errorf("ending key %s: %w", fingerprint, err)
	}
	return nil
}

// Errors of signed approvals that a front end decides on.
var (
	ErrUnsigned  = errors.New("approvals of this must be signed by the approver's own key")
	ErrSignature = errors.New("the signature is not by a key that is registered for this person, over the statement that is to be signed")
)

// evidence verifies a signature over a statement by one of the keys that count for its person. Without a signature it is nil, or
// ErrUnsigned where one is needed.
func (c *CA) evidence(ctx context.Context, s approval.Statement, signature []byte, needed bool) (*Evidence, error) {
	if len(signature) == 0 {
		if needed {
			return nil, ErrUnsigned
		}
		return nil, nil
	}
	text, err := s.Text()
	if err != nil {
		return nil, &InvalidError{
			Field: "signature", Message: "there is no statement to sign: " + err.Error(),
			Hint: "have the person's name changed",
		}
	}
	keys, err := c.store.ApproverKeys(ctx, s.Person)
	if err != nil {
		return nil, fmt.Errorf("looking up the keys of %s: %w", s.Person, err)
	}
	var why error
	for _, k := range keys {
		until := k.Key.Until()
		if k.Person != s.Person || !k.EndedAt.IsZero() || !until.IsZero() && !c.now().Before(until) {
			continue
		}
		if err := k.Key.Verify(text, signature); err != nil {
			why = errors.Join(why, err)
			continue
		}
		return &Evidence{s.Kind, s.ID, s.Person, approval.Evidence{Statement: text, Signature: signature, Key: k.Key}}, nil
	}
	if why == nil {
		why = errors.New("no key that counts is registered for this person")
	}
	return nil, fmt.Errorf("%w: %w", ErrSignature, why)
}

// tell adds to the data of a leaf what the evidence is.
func (e *Evidence) tell(data map[string]string) {
	if e != nil {
		data["key"], data["evidence_sha256"] = e.Key.Fingerprint(), e.Digest()
	}
}

// statement is what an approver signs to say a word on a request.
func (s RequestState) statement(person string, approves bool) approval.Statement {
	return approval.Statement{
		Kind: approval.KindRequest, ID: s.ID, Approves: approves, Person: person, Expires: s.ExpiresAt, Binding: s.Binding,
		Facts: []approval.Fact{
			{Name: "csr_sha256", Value: hexSHA256(s.CSR)},
			{Name: "policies", Value: s.Policies},
			{Name: "profile", Value: s.Profile},
			{Name: "issuer", Value: s.Issuer},
		},
	}
}

// statement is what an approver signs to say a word on a proposal.
func (p PolicyProposal) statement(person string, approves bool) approval.Statement {
	return approval.Statement{
		Kind: approval.KindPolicies, ID: p.ID, Approves: approves, Person: person, Expires: p.ExpiresAt, Binding: p.Digest,
		Facts: []approval.Fact{{Name: "replaces", Value: p.Replaces}},
	}
}

// statement is what an approver signs to say a word on a revocation of many certificates.
func (j RevocationJob) statement(person string, approves bool) approval.Statement {
	facts := []approval.Fact{{Name: "certificates", Value: fmt.Sprint(j.Total)}, {Name: "reason", Value: j.Reason.String()}}
	if j.Keys > 0 {
		facts = append(facts, approval.Fact{Name: "only_keys_remembered", Value: fmt.Sprint(j.Keys)})
	}
	return approval.Statement{
		Kind: approval.KindRevocation, ID: j.ID, Approves: approves, Person: person, Expires: j.ExpiresAt, Binding: j.binding(), Facts: facts,
	}
}

func (j RevocationJob) binding() string { return fmt.Sprintf("sha256:%x", j.Digest) }

// statementText is the text of the statement by which a person would approve what another asked for; empty where there is none to sign.
func statementText(s approval.Statement, asked string) string {
	if s.Person == "" || s.Person == asked || s.Binding == "" {
		return ""
	}
	text, err := s.Text()
	if err != nil { // a name that cannot stand in a statement: its person cannot sign
		return ""
	}
	return string(text)
}

// Statement is the text that a person signs to approve the request, when it waits. There is none for whoever asked.
func (s RequestState) Statement(person string) string {
	return statementText(s.statement(person, true), s.Actor.Person)
}

// Statement is the text that a person signs to approve the proposal. There is none for whoever made it.
func (p PolicyProposal) Statement(person string) string {
	return statementText(p.statement(person, true), p.Person)
}

// Statement is the text that a person signs to approve the revocation. There is none for whoever ordered it.
func (j RevocationJob) Statement(person string) string {
	return statementText(j.statement(person, true), j.Actor.Person)
}
