package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

const variablePrefix = "CHANCERY_"

// variablesOfOthers are not of the configuration, and may stand in the environment of a command that reads one.
var variablesOfOthers = []string{
	"CHANCERY_HOME", "CHANCERY_API", "CHANCERY_TOKEN", "CHANCERY_CA_BUNDLE", "CHANCERY_CLIENT_CERT", "CHANCERY_CLIENT_KEY",
	"CHANCERY_CHECK_THROUGH", "CHANCERY_SOFTHSM_MODULE", "CHANCERY_SECRETS_GID", "CHANCERY_VERSION",
}

// ofService is the form of the variables that Kubernetes and Docker set for a service or a container of our name.
var ofService = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$` +
	`|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$|^CHANCERY_(NAME|ENV_.*)$`)

// override sets the fields that variables of the environment are for. A variable that is named as such and is for none was misspelt: what
// it was to change would stay as it is, and nobody would see it.
func (c *Config) override(environ []string) error {
	given := env.ToMap(environ)
	fields, err := env.GetFieldParamsWithOptions(c, env.Options{Prefix: variablePrefix, Environment: map[string]string{}})
	if err != nil {
		return fmt.Errorf("reading the environment: %w", err)
	}
	variables := make([]string, len(fields))
	for i, f := range fields {
		variables[i] = f.Key
	}
	var all []error
	for _, name := range variables { // one by one, since an error does not say of which it is
		value, ok := given[name]
		if !ok {
			continue
		}
		if err := env.ParseWithOptions(c, env.Options{Prefix: variablePrefix, Environment: map[string]string{name: value}}); err != nil {
			if of := (env.ParseError{}); errors.As(err, &of) {
				err = of.Err
			}
			all = append(all, fmt.Errorf("%s: %w", name, err))
		}
	}
	ours := slices.Concat(variables, variablesOfOthers, c.variablesOfPINs())
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if strings.HasPrefix(name, variablePrefix) && !slices.Contains(ours, name) && !ofService.MatchString(name) {
			all = append(all, fmt.Errorf("%s is for no field of the configuration; is %s meant?", name, nearest(name, variables)))
		}
	}
	if len(all) > 0 {
		return misuse{fmt.Errorf("reading the environment: %w", errors.Join(all...))}
	}
	return nil
}

// variablesOfPINs are those that the configuration itself says hold a PIN.
func (c *Config) variablesOfPINs() (names []string) {
	for _, t := range c.allTokens() {
		names = append(names, t.PIN.Env)
	}
	return names
}

// nearest is the name that takes the fewest changes of a letter to be another.
func nearest(to string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int { return changes(to, a) - changes(to, b) })
}

// changes is how many letters have to be put in, taken out or replaced to make one text of another (Levenshtein).
func changes(from, to string) int {
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(from) {
		before := row[0]
		row[0] = i + 1
		for j := range len(to) {
			replaced := before
			if from[i] != to[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(to)]
}
