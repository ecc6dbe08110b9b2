package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

const (
	insertPolicySet = `INSERT INTO policy_sets (digest, names, contents) VALUES ($1, $2, $3) ON CONFLICT (digest) DO NOTHING`

	selectPolicySet = `SELECT names, contents FROM policy_sets WHERE digest = $1`

	// insertActivation adds the activation that follows the last. Of two at once, one meets the primary key.
	insertActivation = `
	INSERT INTO policy_activations (number, digest, proposal, actor_id, actor_name, comment, at, event_id)
	SELECT $1::bigint, $2, nullif($3::text, '')::uuid, $4, $5, $6, $7::timestamptz, $8::text::uuid
	WHERE coalesce((SELECT max(number) FROM policy_activations), 0) = $1::bigint - 1
	ON CONFLICT (number) DO NOTHING`

	selectSameActivation = `SELECT EXISTS (SELECT FROM policy_activations WHERE number = $1 AND event_id = $2::text::uuid)`

	activationColumns = ` number, digest, coalesce(proposal::text, ''), actor_id, actor_name, comment, at, event_id::text `

	selectRuling = `SELECT` + activationColumns + `FROM policy_activations ORDER BY number DESC LIMIT 1`

	selectActivations = `SELECT` + activationColumns + `FROM policy_activations WHERE $1 IN ('', digest) ORDER BY number DESC LIMIT $2`

	insertProposal = `
	INSERT INTO policy_proposals (id, digest, replaces, needs, actor_id, actor_name, person, comment, at, expires_at, event_id)
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::uuid)`

	selectSameProposal = `SELECT EXISTS (SELECT FROM policy_proposals WHERE id = $1::text::uuid AND digest = $2)`

	selectProposals = `
	SELECT p.id::text, p.digest, p.replaces, p.needs, p.actor_id, p.actor_name, p.person, p.comment, p.at, p.expires_at, p.event_id::text,
	       EXISTS (SELECT FROM policy_activations a WHERE a.proposal = p.id),
	       EXISTS (SELECT FROM policy_activations a WHERE a.at > p.at AND a.digest <> p.replaces AND a.proposal IS DISTINCT FROM p.id)
	FROM policy_proposals p WHERE $1 IN ('', p.id::text) ORDER BY p.at DESC, p.id DESC LIMIT $2`

	selectVotes = `
	SELECT v.proposal::text, v.person, v.approves, v.actor_id, v.actor_name, v.comment, v.at, v.event_id::text,` + evidenceColumns + `
	FROM policy_votes AS v` + evidenceJoin + `v.actor_id
	WHERE v.proposal = ANY ($1::text[]::uuid[]) ORDER BY v.at, v.person`

	// lockProposal makes those who decide on a proposal wait for each other: each must count the other's vote.
	lockProposal = `SELECT pg_advisory_xact_lock(hashtextextended('policy proposal ' || $1::text, 0))`

	selectStanding = `
	SELECT p.needs, EXISTS (SELECT FROM policy_votes v WHERE v.proposal = p.id AND NOT v.approves)
	                OR EXISTS (SELECT FROM policy_activations a WHERE a.proposal = p.id)
	FROM policy_proposals p WHERE p.id = $1::text::uuid`

	insertVote = `
	INSERT INTO policy_votes (proposal, person, approves, actor_id, actor_name, comment, at, event_id)
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8::text::uuid) ON CONFLICT (proposal, person) DO NOTHING`

	// countApprovals counts a login once: two who vote at once with it, as two persons, have not seen each other before.
	countApprovals = `
	SELECT count(DISTINCT v.actor_id) FROM policy_votes AS v` + evidenceJoin + `v.actor_id
	WHERE v.proposal = $1::text::uuid AND v.approves AND (NOT $2 OR e.event_id IS NOT NULL) AND ` + wordHolds

	selectSameVote = `
	SELECT EXISTS (SELECT FROM policy_activations WHERE proposal = v.proposal)
	FROM policy_votes v WHERE proposal = $1::text::uuid AND person = $2 AND event_id = $3::text::uuid`
)

// RulingPolicies is the latest activation.
func (s *Store) RulingPolicies(ctx context.Context) (a ca.PolicyActivation, err error) {
	err = s.read(ctx, "looking which policies rule", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectRuling)
		if err != nil {
			return err
		}
		a, err = pgx.CollectExactlyOneRow(rows, scanActivation)
		if err == pgx.ErrNoRows {
			return ca.ErrNotFound
		}
		return err
	})
	return a, err
}

// PolicyActivations are the latest activations, newest first, of one set or of all.
func (s *Store) PolicyActivations(ctx context.Context, digest string, limit int) (all []ca.PolicyActivation, err error) {
	err = s.read(ctx, "reading the history of the policies", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectActivations, digest, limit)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanActivation)
		return err
	})
	return all, err
}

func scanActivation(row pgx.CollectableRow) (a ca.PolicyActivation, err error) {
	err = row.Scan(&a.Number, &a.Digest, &a.Proposal, &a.ActorID, &a.ActorName, &a.Comment, &a.At, &a.EventID)
	a.At = a.At.UTC()
	return a, err
}

// PolicyFiles are the files of a set that was proposed or activated.
func (s *Store) PolicyFiles(ctx context.Context, digest string) (files []policies.File, err error) {
	err = s.read(ctx, "reading a set of policies", func(ctx context.Context, db querier) error {
		var names []string
		var contents [][]byte
		switch err := db.QueryRow(ctx, selectPolicySet, digest).Scan(&names, &contents); {
		case err == pgx.ErrNoRows:
			return ca.ErrNotFound
		case err != nil:
			return err
		}
		files = make([]policies.File, len(names))
		for i, name := range names {
			files[i] = policies.File{Name: name, Content: contents[i]}
		}
		return nil
	})
	return files, err
}

func keepPolicySet(ctx context.Context, tx pgx.Tx, digest string, files []policies.File) error {
	names, contents := make([]string, len(files)), make([][]byte, len(files))
	for i, f := range files {
		names[i], contents[i] = f.Name, f.Content
	}
	_, err := tx.Exec(ctx, insertPolicySet, digest, names, contents)
	return err
}

// ActivatePolicies keeps a set and has it rule.
func (s *Store) ActivatePolicies(ctx context.Context, a ca.PolicyActivation, files []policies.File, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "activating policies", found(selectSameActivation, a.Number, a.EventID), func(ctx context.Context, tx pgx.Tx) error {
		if err := keepPolicySet(ctx, tx, a.Digest, files); err != nil {
			return err
		}
		if err := addActivation(ctx, tx, a); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

func addActivation(ctx context.Context, tx pgx.Tx, a ca.PolicyActivation) error {
	tag, err := tx.Exec(ctx, insertActivation, a.Number, a.Digest, a.Proposal, a.ActorID, a.ActorName, a.Comment, a.At, a.EventID)
	if err == nil && tag.RowsAffected() == 0 {
		return ca.ErrFenced
	}
	return err
}

// ProposePolicies keeps a set and the proposal to have it rule.
func (s *Store) ProposePolicies(ctx context.Context, p ca.PolicyProposal, files []policies.File, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "proposing policies", found(selectSameProposal, p.ID, p.Digest), func(ctx context.Context, tx pgx.Tx) error {
		if err := keepPolicySet(ctx, tx, p.Digest, files); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertProposal, p.ID, p.Digest, p.Replaces, p.Needs, p.ActorID, p.ActorName, p.Person, p.Comment, p.At,
			p.ExpiresAt, p.EventID); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// PolicyProposals are the latest proposals, newest first, with their votes: one or all.
func (s *Store) PolicyProposals(ctx context.Context, id string, limit int) (all []ca.PolicyProposal, err error) {
	err = s.read(ctx, "reading proposals of policies", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectProposals, id, limit)
		if err != nil {
			return err
		}
		if all, err = pgx.CollectRows(rows, scanProposal); err != nil {
			return err
		}
		place, ids := map[string]int{}, make([]string, len(all))
		for i, p := range all {
			place[p.ID], ids[i] = i, p.ID
		}
		if rows, err = db.Query(ctx, selectVotes, ids); err != nil {
			return err
		}
		var proposal string
		var v ca.PolicyVote
		var e evidenceRow
		columns := append([]any{&proposal, &v.Person, &v.Approves, &v.ActorID, &v.ActorName, &v.Comment, &v.At, &v.EventID}, e.into()...)
		_, err = pgx.ForEachRow(rows, columns, func() (err error) {
			v.At, v.Withdrawn = v.At.UTC(), e.withdrawn
			v.Evidence, err = e.evidence(proposal)
			p := &all[place[proposal]]
			p.Votes = append(p.Votes, v)
			return err
		})
		return err
	})
	return all, err
}

func scanProposal(row pgx.CollectableRow) (p ca.PolicyProposal, err error) {
	err = row.Scan(&p.ID, &p.Digest, &p.Replaces, &p.Needs, &p.ActorID, &p.ActorName, &p.Person, &p.Comment, &p.At, &p.ExpiresAt, &p.EventID,
		&p.Activated, &p.Superseded)
	p.At, p.ExpiresAt = p.At.UTC(), p.ExpiresAt.UTC()
	return p, err
}

// VoteOnPolicies records what a person says to a proposal and, with the last approval that is needed, the activation of its set.
func (s *Store) VoteOnPolicies(
	ctx context.Context, proposal string, v ca.PolicyVote, voted audit.Leaf, a ca.PolicyActivation, activated audit.Leaf,
) (rules bool, err error) {
	done := func(ctx context.Context, db querier) (bool, error) {
		err := db.QueryRow(ctx, selectSameVote, proposal, v.Person, v.EventID).Scan(&rules)
		if err == pgx.ErrNoRows {
			return false, nil
		}
		return err == nil, err
	}
	err = s.inTx(ctx, "deciding on policies", done, func(ctx context.Context, tx pgx.Tx) error {
		rules = false
		if _, err := tx.Exec(ctx, lockProposal, proposal); err != nil {
			return err
		}
		var needs, approvals int
		var closed bool
		switch err := tx.QueryRow(ctx, selectStanding, proposal).Scan(&needs, &closed); {
		case err == pgx.ErrNoRows:
			return ca.ErrNotFound
		case err != nil:
			return err
		}
		err := addWord(ctx, tx, v.EventID, v.Evidence, insertVote, proposal, v.Person, v.Approves, v.ActorID, v.ActorName, v.Comment, v.At,
			v.EventID)
		switch {
		case err != nil:
			return err
		case closed:
			return ca.ErrProposalClosed
		}
		if err := addLeaves(ctx, tx, []audit.Leaf{voted}); err != nil || !v.Approves {
			return err
		}
		if err := tx.QueryRow(ctx, countApprovals, proposal, v.Signed).Scan(&approvals); err != nil || approvals < max(needs, v.Needs) {
			return err
		}
		if err := addActivation(ctx, tx, a); err != nil {
			return err
		}
		rules = true
		return addLeaves(ctx, tx, []audit.Leaf{activated})
	})
	if err != nil {
		return false, fmt.Errorf("proposal %s: %w", proposal, err)
	}
	return rules, nil
}
