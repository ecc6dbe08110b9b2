package probe

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) error {
	out := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintf(out, "token\t%q, serial %s, of %s, model %s, firmware %s\n",
		r.Token.Label, r.Token.Serial, r.Token.Manufacturer, r.Token.Model, r.Token.FirmwareVersion)
	fmt.Fprintf(out, "module\t%s: %s %s\n", r.Module.Path, r.Module.Description, r.Module.Version)
	fmt.Fprintf(out, "profile\t%s\n", r.profile())
	group := ""
	for _, c := range r.Checks {
		if c.Group != group {
			group = c.Group
			fmt.Fprintf(out, "\n%s\n", group)
		}
		fmt.Fprintf(out, "  %s\t%s\t%s\n", c.Name, c.Outcome, c.seen())
	}
	if len(r.Speed) > 0 {
		fmt.Fprintf(out, "\nspeed, signatures a second\n")
		for _, s := range r.Speed {
			fmt.Fprintf(out, "  %s, sessions: %d\t%.0f\n", s.Mechanism, s.Sessions, s.PerSecond)
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	var tail strings.Builder
	fmt.Fprintf(&tail, "\n%s\n", r.Verdict.headline())
	for _, because := range r.Verdict.Because {
		fmt.Fprintf(&tail, "  - %s\n", because)
	}
	if len(r.Lacks) > 0 {
		fmt.Fprintf(&tail, "declared to be missing: %s\n", strings.Join(r.Lacks, ", "))
	}
	for _, q := range r.Quirks {
		fmt.Fprintf(&tail, "known of such tokens: %s\n    what to do: %s\n", q.What, q.Remedy)
	}
	if len(r.Left) > 0 {
		fmt.Fprintf(&tail, "objects of earlier probes are in the token; run again with --remove-leftovers: %s\n", strings.Join(r.Left, ", "))
	}
	_, err := io.WriteString(w, tail.String())
	return err
}

func (r *Report) profile() string {
	if r.Measured == "" {
		return r.Profile + " (not measured by Chancery's tests)"
	}
	return r.Profile + " (measured on " + r.Measured + ")"
}

func (v Verdict) headline() string {
	if v.Runs {
		return "Chancery can run on this token"
	}
	return "Chancery cannot run on this token"
}

func (c Check) seen() string {
	if c.Outcome == Fails && c.CKR != "" {
		return c.CKR
	}
	return strings.ReplaceAll(c.Detail, "\n", "; ")
}

// Markdown writes the report as a page of its own.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Probe of token %q\n\n%s.\n\n", r.Token.Label, r.Verdict.headline())
	for _, because := range r.Verdict.Because {
		fmt.Fprintf(&b, "* %s\n", because)
	}
	fmt.Fprintf(&b, "\n| | |\n| --- | --- |\n| time | %s |\n| module | `%s`, %s %s |\n| token | serial %s, of %s, model %s, firmware %s |\n| vendor profile | %s |\n",
		r.Time.Format("2006-01-02 15:04 UTC"), r.Module.Path, r.Module.Description, r.Module.Version,
		r.Token.Serial, r.Token.Manufacturer, r.Token.Model, r.Token.FirmwareVersion, r.profile())
	b.WriteString("\n| group | what | outcome | seen | ms |\n| --- | --- | --- | --- | ---: |\n")
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f |\n", c.Group, c.Name, c.Outcome, cell(c.seen()), c.Milliseconds)
	}
	if len(r.Speed) > 0 {
		b.WriteString("\n| mechanism | sessions | signatures/s |\n| --- | ---: | ---: |\n")
		for _, s := range r.Speed {
			fmt.Fprintf(&b, "| %s | %d | %.0f |\n", s.Mechanism, s.Sessions, s.PerSecond)
		}
	}
	if len(r.Lacks) > 0 {
		fmt.Fprintf(&b, "\nDeclared to be missing: %s.\n", strings.Join(r.Lacks, ", "))
	}
	if len(r.Quirks) > 0 {
		b.WriteString("\n| known of such tokens | what to do |\n| --- | --- |\n")
		for _, q := range r.Quirks {
			fmt.Fprintf(&b, "| %s | %s |\n", cell(q.What), cell(q.Remedy))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func cell(text string) string { return strings.ReplaceAll(text, "|", "\\|") }

// Compare writes what several probes saw side by side, as Markdown tables.
func Compare(w io.Writer, reports []*Report) error {
	var b strings.Builder
	header := func(first string) {
		fmt.Fprintf(&b, "\n| %s |", first)
		for _, r := range reports {
			fmt.Fprintf(&b, " %s |", cell(r.Profile))
		}
		b.WriteString("\n| --- |" + strings.Repeat(" --- |", len(reports)) + "\n")
	}
	row := func(name string, value func(*Report) string) {
		fmt.Fprintf(&b, "| %s |", cell(name))
		for _, r := range reports {
			fmt.Fprintf(&b, " %s |", cell(value(r)))
		}
		b.WriteString("\n")
	}
	header("")
	row("measured on", func(r *Report) string { return r.Measured })
	row("Chancery runs", func(r *Report) string {
		if r.Verdict.Runs {
			return "yes"
		}
		return "no: " + strings.Join(r.Verdict.Because[:min(1, len(r.Verdict.Because))], "")
	})
	row("keys of an authority", func(r *Report) string { return strings.Join(r.Verdict.Authorities, ", ") })
	var names [][2]string
	for _, r := range reports {
		for _, c := range r.Checks {
			if name := [2]string{c.Group, c.Name}; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	group := ""
	for _, name := range names {
		if name[0] != group {
			group = name[0]
			header(group)
		}
		row(name[1], func(r *Report) string { return r.cellOf(name) })
	}
	declared(header, row, reports)
	if slices.ContainsFunc(reports, func(r *Report) bool { return len(r.Speed) > 0 }) {
		header("signatures a second")
		var at []Speed
		for _, r := range reports {
			for _, s := range r.Speed {
				if s.PerSecond = 0; !slices.Contains(at, s) {
					at = append(at, s)
				}
			}
		}
		slices.SortStableFunc(at, func(a, b Speed) int {
			if by := strings.Compare(a.Mechanism, b.Mechanism); by != 0 {
				return by
			}
			return a.Sessions - b.Sessions
		})
		for _, s := range at {
			row(fmt.Sprintf("%s, sessions: %d", s.Mechanism, s.Sessions), func(r *Report) string {
				for _, other := range r.Speed {
					if other.Mechanism == s.Mechanism && other.Sessions == s.Sessions {
						return fmt.Sprintf("%.0f", other.PerSecond)
					}
				}
				return "-"
			})
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// declared writes what the vendor profiles say to be missing, of which the probe cannot try everything: it makes no token and sets no PIN.
func declared(header func(string), row func(string, func(*Report) string), reports []*Report) {
	var lacked []string
	for _, r := range reports {
		lacked = append(lacked, r.Lacks...)
	}
	if len(lacked) == 0 {
		return
	}
	header("as the vendor profile declares")
	slices.Sort(lacked)
	for _, c := range slices.Compact(lacked) {
		row(c, func(r *Report) string {
			switch {
			case r.Measured == "":
				return "-"
			case slices.Contains(r.Lacks, c):
				return "missing"
			}
			return "yes"
		})
	}
}

// cellOf is the outcome of a check in few words.
func (r *Report) cellOf(name [2]string) string {
	for _, c := range r.Checks {
		if c.Group != name[0] || c.Name != name[1] {
			continue
		}
		switch {
		case c.Outcome == Works:
			return "yes"
		case c.Outcome == Untried:
			return "-"
		case c.CKR != "":
			return "no: " + c.CKR
		}
		return "no: " + c.seen()
	}
	return "-"
}
