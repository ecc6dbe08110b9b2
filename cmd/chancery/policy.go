package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/policies/trial"
	"github.com/chancery-ca/chancery/strictyaml"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "See why, try, test and change what may be issued",
		Long: `See why a request is refused, and try a change of the policies before it rules.

  chancery policy explain --csr www.csr                         what the service would decide, rule by rule
  chancery policy explain --csr www.csr --policies profiles/    what the profiles in a directory would decide`,
	}
	cmd.AddCommand(
		a.policyExplainCommand(), a.policyTestCommand(), a.policyLintCommand(), a.policyDiffCommand(), a.policyBacktestCommand(),
		a.policyActivateCommand(), a.policyReloadCommand(),
		a.policyDecisionCommand("approve", "Agree to proposed policies; with the last approval needed they rule", true,
			(*client.Client).ApprovePolicies),
		a.policyDecisionCommand("reject", "End a proposal", false, (*client.Client).RejectPolicies),
		a.policyHistoryCommand(), a.policyShowCommand(), a.blocklistCommand(),
	)
	return cmd
}

// explainOptions say what is explained, and by which policies.
type explainOptions struct {
	api                      apiFlags
	in                       client.EvaluateInput
	csrFile                  string
	policies                 string
	namespaces, namespace    string
	policiesGiven, namedHere bool
}

func (a *app) policyExplainCommand() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:   "explain --csr FILE",
		Short: "Tell what the policies say about a CSR, rule by rule",
		Long: `Tell what the policies say about a CSR, rule by rule: pass or fail, the value seen, and how to satisfy the rule. Nothing is issued.
The exit code is 1 when the request would be refused.

The service is asked, unless --policies names a directory of profiles: then these decide here, without any service. They know neither
the service's keys nor its history, and no list of keys, and do not ask the DNS: none of it stands in the request's way. Names belong to the
namespace given, or, without one, to whoever asks.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.policiesGiven, o.namedHere = cmd.Flags().Changed("policies"), o.namespaces != "" || o.namespace != ""
			d, err := a.explain(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := a.print(d, func(w io.Writer) { writeDecision(w, d) }); err != nil {
				return err
			}
			if d.Verdict == string(policies.Refuse) {
				return errSilent
			}
			return nil
		},
	}
	o.api.add(cmd)
	cmd.Flags().StringVar(&o.csrFile, "csr", "", "certification request, PEM or DER")
	cmd.Flags().StringVarP(&o.in.Profile, "profile", "p", "tls-server", "profile that is asked for")
	cmd.Flags().StringVar(&o.in.Validity, "validity", "", "how long it shall be valid, such as 30d (default: the profile's)")
	cmd.Flags().StringVar(&o.in.Issuer, "issuer", "", "authority that shall issue it (default: the service's)")
	cmd.Flags().StringVar(&o.policies, "policies", "", "directory of profiles that decide, in place of the service's")
	cmd.Flags().StringVar(&o.namespaces, "namespaces", "", "YAML file with namespaces, as in the configuration; with --policies")
	cmd.Flags().StringVar(&o.namespace, "namespace", "", "namespace that asks, of those in --namespaces")
	_ = cmd.MarkFlagRequired("csr")
	return cmd
}

// explain asks the service or decides here.
func (a *app) explain(ctx context.Context, o explainOptions) (*client.Decision, error) {
	switch {
	case !o.policiesGiven && o.namedHere:
		return nil, misuse{errors.New("--namespaces and --namespace go with --policies: the service knows the namespace of whoever asks")}
	case (o.namespaces == "") != (o.namespace == ""):
		return nil, misuse{errors.New("give --namespaces and --namespace together: the file, and which of its namespaces asks")}
	case o.policiesGiven && o.in.Issuer != "":
		return nil, misuse{errors.New("--issuer goes to the service; with --policies there is none")}
	}
	request, err := readCSR(o.csrFile)
	if err != nil {
		return nil, err
	}
	if o.policiesGiven {
		return a.explainHere(o, request)
	}
	c, err := a.connect(o.api, access.Requester)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	o.in.CSR = request
	return c.Evaluate(ctx, o.in)
}

func (a *app) explainHere(o explainOptions, request string) (*client.Decision, error) {
	set, err := loadPolicies(PoliciesConfig{Directory: o.policies})
	if err != nil {
		return nil, err
	}
	if _, ok := set.Profile(o.in.Profile); !ok {
		return nil, misuse{fmt.Errorf("--profile %q: %s has %s", o.in.Profile, cmp.Or(o.policies, "the program"), strings.Join(set.Names(), ", "))}
	}
	parsed, err := csr.ParsePEM([]byte(request))
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	r := policies.Request{CSR: parsed, Profile: o.in.Profile, Now: a.Now(), Namespace: trial.Everything()}
	if o.in.Validity != "" {
		if r.Validity, err = policies.ParseDuration(o.in.Validity); err != nil {
			return nil, misuse{fmt.Errorf("--validity: %w", err)}
		}
	}
	if o.namespaces != "" {
		if r.Namespace, err = oneNamespace(o.namespaces, o.namespace); err != nil {
			return nil, err
		}
	}
	r.Actor = access.Actor{ID: operator(), Name: operator(), Namespace: r.Namespace.Name, Roles: []access.Role{access.Requester}}
	if r.Issuer, err = trial.NewIssuer(a.Random, a.Now()); err != nil {
		return nil, err
	}
	return explained(trial.Decide(set, r)), nil
}

// oneNamespace is one of the namespaces of a file, which has the form of the configuration.
func oneNamespace(file, name string) (access.Namespace, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return access.Namespace{}, fmt.Errorf("reading the namespaces: %w", err)
	}
	var written struct {
		Namespaces []NamespaceConfig `yaml:"namespaces"`
	}
	doc := strictyaml.Decode(file, content, &written)
	if doc.OK() {
		validateNamespaces(doc, written.Namespaces)
	}
	if err := doc.Err(); err != nil {
		return access.Namespace{}, err
	}
	for _, n := range written.Namespaces {
		if n.Name == name {
			return n.namespace(), nil
		}
	}
	return access.Namespace{}, misuse{fmt.Errorf("--namespace %q: %s has no such namespace", name, file)}
}

// explained is a decision made here, in the words of the API.
func explained(d *policies.Decision) *client.Decision {
	e := &client.Decision{
		Verdict: string(d.Verdict()), Profile: d.Profile(), PolicyVersion: d.PolicyDigest(),
		Violations: []client.Violation{},
	}
	for _, r := range d.Results() {
		result := client.RuleResult{Rule: r.Rule, Source: r.Source, Verdict: string(r.Verdict), Seen: r.Seen}
		for _, n := range r.Notices {
			result.Notices = append(result.Notices, shownViolation(n))
		}
		for _, v := range r.Violations {
			result.Violations = append(result.Violations, shownViolation(v))
		}
		e.Results, e.Violations = append(e.Results, result), append(e.Violations, result.Violations...)
	}
	if t, ok := d.Template(); ok {
		e.Content = &client.Content{Subject: t.Subject.String(), Names: t.Names(), NotBefore: t.NotBefore.UTC(), NotAfter: t.NotAfter.UTC()}
	}
	return e
}

func shownViolation(v policies.Violation) client.Violation {
	return client.Violation{Rule: v.Rule, Field: v.Field, Message: v.Message, Hint: v.Hint}
}

// writeDecision tells people what every rule says.
func writeDecision(w io.Writer, d *client.Decision) {
	fmt.Fprintf(w, "%s: %s   (policies %s)\n\n", d.Profile, strings.ToUpper(d.Verdict), d.PolicyVersion)
	word := map[string]string{
		string(policies.Allow): "pass", string(policies.Refuse): "FAIL", string(policies.NeedsApproval): "WAIT", string(policies.NotReached): "-",
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range d.Results {
		note := r.Source
		if r.Verdict == string(policies.NotReached) {
			note += "; not reached"
		}
		if r.Seen != "" {
			note += "; saw " + r.Seen
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", word[r.Verdict], r.Rule, note)
		for _, v := range slices.Concat(r.Violations, r.Notices) {
			fmt.Fprintf(t, "\t  %s\t%s\n", v.Field, v.Message)
			if v.Hint != "" {
				fmt.Fprintf(t, "\t  hint\t%s\n", v.Hint)
			}
		}
	}
	_ = t.Flush()
	if d.Content != nil {
		fmt.Fprintf(w, "\nThe certificate would say:\n  subject  %s\n  names    %s\n  valid    %s to %s\n", d.Content.Subject,
			strings.Join(d.Content.Names, ", "), d.Content.NotBefore.UTC().Format(time.RFC3339), d.Content.NotAfter.UTC().Format(time.RFC3339))
	}
}
