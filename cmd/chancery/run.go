package main

import (
	"bufio"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
)

// Env is everything that a run takes from its surroundings.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Environ        []string
	Now            func() time.Time
	Random         io.Reader
	// OwnProcess says that the process is this run's alone, so that what holds for all of a process may be changed.
	OwnProcess bool

	// WrapStore and WrapKey, when set, stand between the authority and what it depends on. Tests that stop the process at each step of
	// an issuance use them; a step is a call of one of the two.
	WrapStore func(ca.Store) ca.Store
	WrapKey   func(authority string, key crypto.Signer) crypto.Signer
	// WritesAlone has no two issuances share a transaction. Benchmarks compare with it.
	WritesAlone bool
}

// lookup finds an environment variable.
func (e Env) lookup(name string) string {
	for _, entry := range e.Environ {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// misuse is an error in how the command was called, as opposed to one in what it did.
type misuse struct{ error }

func (m misuse) Unwrap() error { return m.error }

// silent is a failure whose words are on the output already.
var errSilent = errors.New("failed")

func exitCode(err error) int {
	var m misuse
	switch {
	case err == nil:
		return 0
	case errors.As(err, &m):
		return 2
	}
	return 1
}

// app is what the commands share.
type app struct {
	Env
	output string // "text" or "json"
	// advice is what may help when the service does not know who calls.
	advice string
	// loggedInAt is the service whose login is used; empty: none is.
	loggedInAt string
	// interrupted is closed when the program is asked to end. Nil: it is not asked.
	interrupted <-chan struct{}
}

// run carries out one command line. It returns what main exits with; it never exits by itself.
func run(ctx context.Context, args []string, env Env) error {
	a := &app{Env: env, interrupted: ctx.Done()}
	root := a.rootCommand()
	root.SetArgs(args)
	err := a.advise(root.ExecuteContext(ctx))
	if err != nil && (strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag")) {
		err = misuse{err} // cobra gives these two no type
	}
	if err != nil && !errors.Is(err, errSilent) {
		if jsonAsked(args) {
			a.output = "json"
		}
		a.reportError(err)
	}
	return err
}

// jsonAsked finds -o json in a command line that could not be read up to there: what is wrong with it is told in the form asked for.
func jsonAsked(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			return i+1 < len(args) && args[i+1] == "json"
		}
	}
	return false
}

// rootCommand is the command line with all its verbs.
func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "chancery",
		Short: "A certificate authority whose keys never leave the HSM",
		Long: `Chancery is a certificate authority whose keys never leave the HSM.

Start with:   chancery dev          everything on this machine, for trying and developing
then:         chancery request      a certificate for a CSR, or for a new key`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "output format: text or json")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.output != "text" && a.output != "json" {
			return misuse{fmt.Errorf("--output %q: use text or json", a.output)}
		}
		// Whatever the command is, a PIN, a token or a key may come into its memory. What chancery dev has are none, and who develops looks in.
		if a.OwnProcess && cmd.Name() != "dev" {
			return keepOutOfCores()
		}
		return nil
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if pinOnCommandLine(err) {
			return misuse{errors.New("a PIN has no place on a command line: whoever lists processes reads it, and the shell's history keeps it.\n" +
				"Put it into a file of mode 0600 and give --pin-file (--so-pin-file, --new-pin-file), or leave the flag out to be asked.\n" +
				"If this was the real one, change it: chancery hsm pin change")}
		}
		return misuse{fmt.Errorf("%w\nSee '%s --help'", err, cmd.CommandPath())}
	})
	root.SetIn(a.Stdin)
	root.SetOut(a.Stdout)
	root.SetErr(a.Stderr)
	root.AddGroup(
		&cobra.Group{ID: "service", Title: "Running the authority:"},
		&cobra.Group{ID: "operate", Title: "Setting it up:"},
		&cobra.Group{ID: "client", Title: "Using it:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		"service": {a.devCommand(), a.serveCommand(), a.keeperCommand(), a.migrateCommand(), a.healthCommand()},
		"operate": {
			a.hsmCommand(), a.ceremonyCommand(), a.authorityCommand(), a.namespaceCommand(), a.policyCommand(), a.crlCommand(), a.tokenCommand(),
			a.issuanceCommand(), a.replicasCommand(), a.archiveCommand(), a.auditCommand(), a.approverCommand(),
		},
		"client": {
			a.loginCommand(), a.logoutCommand(), a.whoAmICommand(), a.requestCommand(), a.getCommand(), a.listCommand(), a.revokeCommand(), a.revocationCommand(), a.requestsCommand(), a.approveCommand(),
			a.rejectCommand(),
			a.ctCommand(), a.ocspCommand(), a.consoleCommand(), a.approvalCommand(), a.orderCommand(),
		},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	root.AddCommand(a.versionCommand())
	for _, c := range root.Commands() {
		markMisuse(c)
	}
	return root
}

// markMisuse makes a wrong number of arguments, and a group called without its verb, count as misuse.
func markMisuse(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markMisuse(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return misuse{fmt.Errorf("%w\nUsage: %s", err, cmd.UseLine())}
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse{fmt.Errorf("unknown command %q for %q\nSee '%s --help'", args[0], cmd.CommandPath(), cmd.CommandPath())}
			}
			return misuse{fmt.Errorf("%s needs a verb\nSee '%s --help'", cmd.CommandPath(), cmd.CommandPath())}
		}
	}
}

// failure is what went wrong, in JSON.
type failure struct {
	Error   string       `json:"error"`             // as text has it
	Problem *problemTold `json:"problem,omitempty"` // what the service has answered; left out where it has not
}

// problemTold is an answer of the service that is not a success, for programs to decide on.
type problemTold struct {
	Type       string             `json:"type,omitempty"`
	Title      string             `json:"title"`
	Status     int                `json:"status"`
	Detail     string             `json:"detail,omitempty"`
	Instance   string             `json:"instance,omitempty"`
	Violations []client.Violation `json:"violations,omitempty"`
	RetryAfter int                `json:"retry_after,omitempty"` // seconds
	MayBeDone  bool               `json:"may_be_done,omitempty"` // by an earlier attempt
}

func newFailure(err error) failure {
	f := failure{Error: err.Error()}
	if p := (*client.Problem)(nil); errors.As(err, &p) {
		f.Problem = &problemTold{
			p.Type, p.Title, p.Status, p.Detail, p.Instance, p.Violations, int((p.RetryAfter + time.Second - 1) / time.Second), p.MayBeDone,
		}
	}
	return f
}

// reportError says what went wrong, as text or as one JSON object, always on standard error. It may be what a service has answered, or
// whoever did so in its place, and steers no terminal.
func (a *app) reportError(err error) {
	if a.output == "json" {
		_ = json.NewEncoder(a.Stderr).Encode(newFailure(err))
		return
	}
	fmt.Fprintln(a.Stderr, "chancery:", audit.Legible(err.Error(), ""))
}

// print writes a result: as indented JSON with -o json, else as the text that write makes.
func (a *app) print(result any, write func(w io.Writer)) error {
	if a.output != "json" {
		return a.printText(write)
	}
	enc := json.NewEncoder(a.Stdout)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(result); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// printText writes text. That it could not be written is an error: a token that is shown once, or a certificate, would be lost unnoticed.
func (a *app) printText(write func(w io.Writer)) error {
	out := bufio.NewWriter(a.Stdout) // which remembers the first failure
	write(out)
	if err := out.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// legible is a text that somebody wrote, or that quotes one, within a line: each further line of it is marked.
func legible(text string) string { return audit.Legible(text, "| ") }

// cell is a text that somebody wrote, for a column of a table, counted from 0: each of its lines stays in the column.
func cell(column int, text string) string {
	return audit.Legible(text, strings.Repeat("\t", column)+"| ")
}
