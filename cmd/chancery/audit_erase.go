package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage"
)

func (a *app) auditEraseCommand() *cobra.Command {
	var f storage.PrivateFilter
	var url historyFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "erase --value NAME|--event EVENT --database FILE",
		Short: "Erase who a person was, or what somebody wrote, from beside the log",
		Long: `Erase who a person was, or what somebody wrote, from beside the log. The log itself holds digests of it alone, which say nothing once the text
and its salt are erased: it verifies as before. The login must be that of the database's owner, for the service can erase nothing.

Without --yes it is told what would be erased. What was exported or delivered before is not reached by it, nor are the tables of requests,
approvals and revocations.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.Event == "" && f.Value == "" {
				return misuse{errors.New("give --event, --value, or both")}
			}
			return a.auditErase(cmd.Context(), url, f, yes)
		},
	}
	url.add(cmd)
	cmd.Flags().Lookup("database").Usage = "file that holds the URL of the database, for the login that owns it"
	cmd.Flags().StringVar(&f.Event, "event", "", "ID of an event: its texts")
	cmd.Flags().StringVar(&f.Value, "value", "", "a whole text, such as a person's name, wherever it is kept")
	cmd.Flags().StringVar(&f.Field, "field", "", "of this field alone: person, name or comment")
	cmd.Flags().BoolVar(&yes, "yes", false, "erase it")
	return cmd
}

// shownErasure is what was erased, or would be.
type shownErasure struct {
	Erased bool                  `json:"erased"`
	Texts  []storage.PrivateText `json:"texts"`
	Event  string                `json:"audit_event,omitempty"`
}

func (a *app) auditErase(ctx context.Context, from historyFlags, f storage.PrivateFilter, yes bool) error {
	url, err := from.url(a)
	if err != nil {
		return err
	}
	shown := shownErasure{Texts: []storage.PrivateText{}}
	var leaf func([]storage.PrivateText) (audit.Leaf, error)
	if yes {
		shown.Event = newID()
		leaf = func(texts []storage.PrivateText) (audit.Leaf, error) {
			return audit.New(audit.Event{ID: shown.Event, Kind: audit.PrivateErased, Time: a.Now(), Actor: operator(), Data: erasureData(texts)})
		}
	}
	texts, err := storage.ErasePrivate(ctx, url, f, leaf)
	if err != nil {
		return err
	}
	shown.Texts = append(shown.Texts, texts...)
	if shown.Erased = yes && len(texts) > 0; !shown.Erased {
		shown.Event = ""
	}
	return a.print(shown, func(w io.Writer) {
		verb := "would be erased; add --yes"
		if yes {
			verb = "erased"
		}
		for _, t := range texts {
			fmt.Fprintf(w, "%s of event %s\n", t.Field, t.Event)
		}
		fmt.Fprintf(w, "%d texts %s\n", len(texts), verb)
	})
}

// erasureData says of which events something was erased, and of so many that a leaf could not hold them, of how many.
func erasureData(texts []storage.PrivateText) map[string]string {
	const most = 100
	var events, fields []string
	for _, t := range texts {
		events, fields = append(events, t.Event), append(fields, t.Field)
	}
	slices.Sort(fields)
	events = slices.Compact(events) // they come in order
	data := map[string]string{"texts": strconv.Itoa(len(texts)), "fields": strings.Join(slices.Compact(fields), " ")}
	if len(events) <= most {
		data["events"] = strings.Join(events, " ")
	}
	return data
}
