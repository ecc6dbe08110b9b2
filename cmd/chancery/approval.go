package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/csr"
)

func requestDecided(r *client.WaitingRequest) decidedOn {
	digest, asks := "", ""
	if block, _ := pem.Decode([]byte(r.CSR)); block != nil {
		sum := sha256.Sum256(block.Bytes)
		digest, asks = hex.EncodeToString(sum[:]), askedFor(block.Bytes)
	}
	facts := map[string]string{"csr_sha256": digest, "policies": r.Policies, "profile": r.Profile, "issuer": r.Issuer}
	return decidedOn{approval.KindRequest, r.ID, r.Binding, facts, r.Statement, asks}
}

// askedFor says what a CSR asks for, read here: the statement has its digest alone, and the names beside it are what the service says.
func askedFor(der []byte) string {
	r, err := csr.Parse(der)
	if err != nil {
		return cell(1, "The CSR of this digest cannot be read: "+err.Error())
	}
	var subject pkix.RDNSequence
	for _, a := range r.Subject() {
		subject = append(subject, pkix.RelativeDistinguishedNameSET{{Type: a.OID, Value: a.Value}})
	}
	asked := r.Names()
	names := slices.Clone(asked.DNS)
	for _, ip := range asked.IP {
		names = append(names, ip.String())
	}
	names = slices.Concat(names, asked.Email, asked.URI)
	for _, other := range asked.Other {
		names = append(names, other.Kind)
	}
	return cell(1, fmt.Sprintf("The CSR of this digest asks for the names %q and the subject %q.", names, subject.String()))
}

func proposalDecided(p *client.PolicyProposal) decidedOn {
	return decidedOn{approval.KindPolicies, p.ID, p.Digest, map[string]string{"replaces": p.Replaces}, p.Statement, ""}
}

func jobDecided(j *client.RevocationJob) decidedOn {
	facts := map[string]string{"certificates": strconv.Itoa(j.Total), "reason": j.Reason}
	if j.Keys > 0 {
		facts["only_keys_remembered"] = strconv.Itoa(j.Keys)
	}
	return decidedOn{approval.KindRevocation, j.ID, "sha256:" + j.Digest, facts, j.Statement, ""}
}

// findProposal is one of the latest proposals.
func findProposal(ctx context.Context, c *client.Client, id string) (*client.PolicyProposal, error) {
	state, err := c.Policies(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(state.Proposals, func(p client.PolicyProposal) bool { return p.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("there is no proposal %s among the latest", id)
	}
	return &state.Proposals[i], nil
}

func (a *app) approvalCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "approval", Short: "Signed approvals: what to sign, and what was signed"}
	cmd.AddCommand(a.approvalStatementCommand(), a.approvalVerifyCommand())
	return cmd
}

func (a *app) approvalStatementCommand() *cobra.Command {
	var kind string
	var rejects bool
	cmd := &cobra.Command{
		Use:   "statement ID",
		Short: "Print exactly what is to be signed, to sign it elsewhere",
		Long: `Print exactly what is to be signed, to sign it elsewhere, for example with a key in a smart card.

  chancery approval statement ID > statement
  ssh-keygen -Y sign -n chancery-approval -f ~/.ssh/id_ed25519 statement             writes statement.sig
  openssl cms -sign -binary -md sha256 -signer me.pem -inkey me.key -in statement -outform PEM -out statement.sig
  chancery approve ID --signature statement.sig`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&kind, "kind", approval.KindRequest, "what ID is of: request, policies, revocation or order")
	cmd.Flags().BoolVar(&rejects, "reject", false, "the statement of a rejection")
	return a.overAPI(cmd, access.Approver, func(ctx context.Context, c *client.Client, args []string) error {
		of, err := findDecided(ctx, c, kind, args[0])
		if err != nil {
			return err
		}
		text, err := of.text(!rejects)
		if err != nil {
			return err
		}
		result := struct {
			Statement string `json:"statement"`
		}{string(text)}
		if of.asks != "" {
			fmt.Fprintln(a.Stderr, of.asks)
		}
		return a.print(result, func(w io.Writer) { _, _ = w.Write(text) })
	})
}

func findDecided(ctx context.Context, c *client.Client, kind, id string) (decidedOn, error) {
	switch kind {
	case approval.KindRequest:
		r, err := c.WaitingRequest(ctx, id)
		if err != nil {
			return decidedOn{}, err
		}
		return requestDecided(r), nil
	case approval.KindPolicies:
		p, err := findProposal(ctx, c, id)
		if err != nil {
			return decidedOn{}, err
		}
		return proposalDecided(p), nil
	case approval.KindRevocation:
		j, err := c.RevocationJob(ctx, id)
		if err != nil {
			return decidedOn{}, err
		}
		return jobDecided(j), nil
	case approval.KindOrder:
		o, err := c.Order(ctx, id)
		if err != nil {
			return decidedOn{}, err
		}
		return orderDecided(o), nil
	}
	return decidedOn{}, misuse{fmt.Errorf("--kind %q: use request, policies, revocation or order", kind)}
}

// verifiedWord is a signed word that was verified offline.
type verifiedWord struct {
	Person    string `json:"person"`
	Approves  bool   `json:"approves"`
	Kind      string `json:"kind"`
	ID        string `json:"id"`
	Key       string `json:"key"` // fingerprint
	Known     bool   `json:"known"`
	Digest    string `json:"evidence_sha256"`
	Event     string `json:"audit_event"`
	Statement string `json:"statement"`
}

func (a *app) approvalVerifyCommand() *cobra.Command {
	var keys string
	cmd := &cobra.Command{
		Use:   "verify FILE",
		Short: "Verify the signed approvals in what was exported, without the service",
		Long: `Verify the signed approvals in what was exported, without the service. FILE is what one of these wrote, - is standard input:

  chancery requests ID -o json          chancery revocation show JOB -o json          chancery policy history -o json

Each signature is verified over its statement, which must be about what the file shows beside it: that request with its CSR, those policies,
that list of certificates. With --keys, a file with lines "PERSON SSH-KEY", keys must be those of their persons; without it, whose they are is
what the file says. The evidence_sha256 that is printed stands in the leaf of the approval's event in the audit log.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := a.readInput(args[0])
			if err != nil {
				return err
			}
			known, err := readKnownKeys(keys)
			if err != nil {
				return err
			}
			words, err := verifyWords(data, known)
			if err != nil {
				return err
			}
			return a.print(words, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "PERSON\tDECISION\tOF\tKEY\tEVIDENCE")
				for _, x := range words {
					decision := "rejected"
					if x.Approves {
						decision = "approved"
					}
					fmt.Fprintf(t, "%s\t%s\t%s %s\t%s\t%s\n", x.Person, decision, x.Kind, x.ID, x.Key, x.Digest)
				}
				_ = t.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "",
		`file of keys that are known otherwise: lines of "PERSON SSH-KEY", as in OpenSSH's allowed signers`)
	withValue(cmd, "keys")
	return cmd
}

func (a *app) readInput(name string) ([]byte, error) {
	const most = 64 << 20
	in := a.Stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > most {
		return nil, fmt.Errorf("%s has more than %d octets", name, most)
	}
	return data, nil
}

// readKnownKeys reads whose keys are whose: person by fingerprint. No file: nil.
func readKnownKeys(name string) (map[string]string, error) {
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading the known keys: %w", err)
	}
	known := map[string]string{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		person, text, _ := strings.Cut(line, " ")
		key, err := approval.ParseKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
		if other, twice := known[key.Fingerprint()]; twice && other != person {
			return nil, fmt.Errorf("%s:%d: this is the key of %s as well", name, i+1, other)
		}
		known[key.Fingerprint()] = person
	}
	return known, nil
}

// exported is a thing that an export holds, with what was said to it.
type exported struct {
	ID        string         `json:"id"`
	Approvals []exportedWord `json:"approvals"`
	Votes     []exportedWord `json:"votes"`

	whole json.RawMessage
}

// exportedWord is one that an export holds, whatever it is of.
type exportedWord struct {
	Person   string           `json:"person"`
	Approved bool             `json:"approved"`
	Approves bool             `json:"approves"`
	Binding  string           `json:"binding"` // of a word on a request, which has another when the policies have changed
	Event    string           `json:"audit_event"`
	Evidence *client.Evidence `json:"evidence"`
}

// verifyWords verifies the signed words of an export. It is an error for one not to verify, and for there to be none.
func verifyWords(data []byte, known map[string]string) ([]verifiedWord, error) {
	var history struct {
		Proposals []json.RawMessage `json:"proposals"`
	}
	if err := json.Unmarshal(data, &history); err != nil {
		return nil, fmt.Errorf("reading the export: %w", err)
	}
	var verified []verifiedWord
	for _, whole := range append(history.Proposals, data) {
		of := exported{whole: whole}
		if err := json.Unmarshal(whole, &of); err != nil {
			return nil, fmt.Errorf("reading the export: %w", err)
		}
		for _, said := range append(of.Approvals, of.Votes...) {
			if said.Evidence == nil {
				continue
			}
			word, err := verifyWord(of, said, known)
			if err != nil {
				return nil, fmt.Errorf("the word of %q on %s: %w", said.Person, of.ID, err)
			}
			verified = append(verified, word)
		}
	}
	if len(verified) == 0 {
		return nil, errors.New("nothing in it is signed")
	}
	return verified, nil
}

func verifyWord(of exported, said exportedWord, known map[string]string) (verifiedWord, error) {
	key, err := approval.ParseKey([]byte(said.Evidence.Key))
	if err != nil {
		return verifiedWord{}, err
	}
	evidence := approval.Evidence{Statement: []byte(said.Evidence.Statement), Signature: []byte(said.Evidence.Signature), Key: key}
	s, err := evidence.Verify()
	if err != nil {
		return verifiedWord{}, err
	}
	word := verifiedWord{
		Person: s.Person, Approves: s.Approves, Kind: s.Kind, ID: s.ID, Key: key.Fingerprint(), Known: known[key.Fingerprint()] == s.Person,
		Digest: evidence.Digest(), Event: said.Event, Statement: said.Evidence.Statement,
	}
	about, err := of.decided(s.Kind, said)
	if !s.Approves && said.Binding == "" { // who rejects a request need not say what was looked at
		about.binding = s.Binding
	}
	switch {
	case err != nil:
		return word, err
	case s.ID != of.ID || s.Person != said.Person || s.Approves != (said.Approved || said.Approves):
		return word, errors.New("what was signed is another word than the one on record")
	case said.Evidence.Digest != word.Digest:
		return word, errors.New("the digest on record is not that of the evidence")
	case known != nil && !word.Known:
		return word, fmt.Errorf("the key %s is not one that is known to be theirs", word.Key)
	case !about.isAbout(s):
		return word, errors.New("what was signed is about something else than the export: another CSR, other policies, certificates or facts")
	}
	return word, nil
}

// decided is what a statement of a kind must be about to be about this.
func (of exported) decided(kind string, said exportedWord) (about decidedOn, err error) {
	read := func(into any) error {
		if err := json.Unmarshal(of.whole, into); err != nil {
			return fmt.Errorf("reading the export: %w", err)
		}
		return nil
	}
	switch kind {
	case approval.KindRequest:
		var r client.WaitingRequest
		err = read(&r)
		about = requestDecided(&r)
		about.binding = said.Binding
		delete(about.facts, "policies") // those that hold now, and not those of the word, which its binding names
	case approval.KindPolicies:
		var p client.PolicyProposal
		err = read(&p)
		about = proposalDecided(&p)
	case approval.KindRevocation:
		var j client.RevocationJob
		err = read(&j)
		about = jobDecided(&j)
	case approval.KindOrder:
		var o client.Order
		err = read(&o)
		about = orderDecided(&o)
	default:
		err = fmt.Errorf("a statement of the kind %q is not known", kind)
	}
	return about, err
}
