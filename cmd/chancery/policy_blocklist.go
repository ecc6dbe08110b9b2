package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/blocklist"
)

func (a *app) blocklistCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "blocklist",
		Short: "Make and check lists of keys that nobody may have certified",
		Long: `Make and check lists of keys that nobody may have certified: Debian's weak keys, keys that leaked.

The configuration names the lists (policies: {key_lists: [...]}). A service takes up a list that is replaced within a minute.`,
	}
	cmd.AddCommand(a.blocklistBuildCommand(), a.blocklistCheckCommand())
	return cmd
}

// keyList is a list as it is shown.
type keyList struct {
	File   string `json:"file"`
	Title  string `json:"title"`
	Keys   int64  `json:"keys"`
	Digest string `json:"digest"` // "sha256:" and hex: that of the file without it
}

func showList(file string, l *blocklist.List) keyList {
	digest := l.Digest()
	return keyList{File: file, Title: l.Title(), Keys: l.Len(), Digest: "sha256:" + hex.EncodeToString(digest[:])}
}

func (a *app) blocklistBuildCommand() *cobra.Command {
	var title, out string
	cmd := &cobra.Command{
		Use:   "build --title TITLE --out LIST SOURCE...",
		Short: "Make a list of the keys in files",
		Long: `Make a list of the keys in files, or replace it.

A source is PEM (public keys, certificates, certification requests); text with the SHA-256 of one SubjectPublicKeyInfo in hexadecimal at the
beginning of each line; or another list. By hand, the digest is: openssl pkey -pubin -in key.pem -outform DER | sha256sum`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, sources []string) error {
			var keys []blocklist.Key
			for _, source := range sources {
				more, err := blocklist.Read(source)
				if err != nil {
					return err
				}
				keys = append(keys, more...)
			}
			given := len(keys)
			if given == 0 {
				return errors.New("the sources hold no key")
			}
			place, stream, err := placeOf(out)
			if err != nil {
				return fmt.Errorf("writing the list of keys %s: %w", out, err)
			}
			if stream {
				return fmt.Errorf("%s is no file that a list can be kept in: name another", out)
			}
			if _, err := blocklist.Write(place, title, keys); err != nil {
				return err
			}
			list, err := blocklist.Open(out)
			if err != nil {
				return err
			}
			defer list.Close()
			shown := showList(out, list)
			return a.print(shown, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %q, %d keys (%d were given)\n", shown.File, shown.Title, shown.Keys, given)
			})
		},
	}
	cmd.Flags().StringVar(&title, "title", "", "what keys these are, in at most 64 octets; whoever is refused is shown it")
	cmd.Flags().StringVar(&out, "out", "", "file of the list")
	_ = cmd.MarkFlagRequired("title")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

// keyFound is a key that was looked for in lists.
type keyFound struct {
	SPKI  string   `json:"spki_sha256"`
	Lists []string `json:"lists"` // the titles of those that hold it
}

func (a *app) blocklistCheckCommand() *cobra.Command {
	var csr string
	cmd := &cobra.Command{
		Use:   "check LIST... [--csr FILE]",
		Short: "Check that lists are whole, and whether they hold a key",
		Long: `Check that lists are whole, and whether they hold a key.

Every octet of the lists is read. With --csr the exit code is 1 when a list holds the key of the request.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, files []string) error {
			lists, err := blocklist.OpenAll(files)
			if err != nil {
				return err
			}
			defer lists.Close()
			result := struct {
				Lists []keyList  `json:"lists"`
				Keys  []keyFound `json:"keys"`
			}{[]keyList{}, []keyFound{}}
			for i, l := range lists.All() {
				result.Lists = append(result.Lists, showList(files[i], l))
			}
			listed := 0
			if csr != "" {
				if result.Keys, listed, err = findKeys(lists, csr); err != nil {
					return err
				}
			}
			err = a.print(result, func(w io.Writer) {
				table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "FILE\tTITLE\tKEYS")
				for _, l := range result.Lists {
					fmt.Fprintf(table, "%s\t%s\t%d\n", l.File, l.Title, l.Keys)
				}
				table.Flush() //nolint:errcheck // the writer below it tells
				for _, k := range result.Keys {
					if len(k.Lists) == 0 {
						fmt.Fprintf(w, "%s is in no list\n", k.SPKI)
					}
					for _, title := range k.Lists {
						fmt.Fprintf(w, "%s is in the list %q\n", k.SPKI, title)
					}
				}
			})
			if err == nil && listed > 0 {
				err = errSilent
			}
			return err
		},
	}
	cmd.Flags().StringVar(&csr, "csr", "", "certification request, certificate or public key in PEM, or digests: whether a list holds the key")
	return cmd
}

// findKeys looks the keys of a file up, and counts those that a list holds.
func findKeys(lists *blocklist.Lists, file string) (found []keyFound, listed int, err error) {
	keys, err := blocklist.Read(file)
	if err != nil {
		return nil, 0, err
	}
	for _, key := range keys {
		titles, err := lists.Listed(key)
		if err != nil {
			return nil, 0, err
		}
		if len(titles) > 0 {
			listed++
		}
		found = append(found, keyFound{SPKI: hex.EncodeToString(key[:]), Lists: append([]string{}, titles...)})
	}
	if len(found) == 0 {
		return nil, 0, fmt.Errorf("%s holds no key", file)
	}
	return found, listed, nil
}
