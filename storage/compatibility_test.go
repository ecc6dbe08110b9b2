package storage_test

import (
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/migrations"
)

// A migration takes nothing away, and asks nothing new, of the programs that run beside it. One that must, says so in a line that begins
// with "-- contract:", tells why no older program needs it any more, and raises compatible_from. What it puts something in place of, in the
// same transaction and so that programs cannot tell, it names in a line "-- replaces NAME: why"; a table then gets its name again.
func TestMigrationsLeaveOlderProgramsTheirs(t *testing.T) {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 6 {
		t.Fatalf("only %d migrations", len(names))
	}
	for _, name := range names {
		text, err := fs.ReadFile(migrations.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		contract, raises := strings.Contains(string(text), "\n-- contract: "), regexp.MustCompile(`(?i)update schema_compatibility`).Match(text)
		if contract != raises {
			t.Errorf("%s: a migration that contracts says so and raises compatible_from; it says so: %v, it raises it: %v", name, contract, raises)
		}
		if found := takenAway(string(text)); len(found) > 0 && !contract {
			t.Errorf("%s: programs that run beside it may use, or not know of, what these change: %q; expand first, and contract in a later release "+
				"(docs/operating.md)", name, found)
		}
		if err := regexp.MustCompile(`(?m)^-- \+goose Down`).FindString(string(text)); err != "" {
			t.Errorf("%s goes back; migrations only go on", name)
		}
	}
}

var (
	comments = regexp.MustCompile(`--[^\n]*`)
	// bodies of functions are what the migration writes, not what it does; they are replaced whole, under one signature.
	bodies  = regexp.MustCompile(`(?s)\$\$.*?\$\$`)
	created = regexp.MustCompile(`(?i)\bcreate\s+table\s+(?:if\s+not\s+exists\s+)?(\w+)`)
	altered = regexp.MustCompile(`(?i)^\s*alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?(\w+)`)
	drops   = regexp.MustCompile(`(?i)\bdrop\s+(table|view|function|column|schema|type|index|role|trigger)\b`)
	renames = regexp.MustCompile(`(?i)\brename\b`)
	retypes = regexp.MustCompile(`(?i)\balter\s+(column\s+)?\w+\s+(set\s+data\s+)?type\b`)
	needs   = regexp.MustCompile(`(?i)\bset\s+not\s+null\b`)
	revokes = regexp.MustCompile(`(?i)\brevoke\b.*\bfrom\s+chancery_service\b`)
	rewrite = regexp.MustCompile(`(?i)^\s*(delete\s+from|truncate|update)\s+(\w+)`)
	placed  = regexp.MustCompile(`(?m)^-- replaces (\w+): .`)
	adds    = regexp.MustCompile(`(?is)\badd\s+column\s+(?:if\s+not\s+exists\s+)?\w+[^,]*`)
)

// takenAway finds the statements of a migration that change what programs from before it rely on.
func takenAway(migration string) (found []string) {
	text := bodies.ReplaceAllString(comments.ReplaceAllString(migration, ""), "''")
	var own []string // tables that no older program knows
	for _, m := range created.FindAllStringSubmatch(text, -1) {
		own = append(own, strings.ToLower(m[1]))
	}
	var replaced []*regexp.Regexp
	for _, m := range placed.FindAllStringSubmatch(migration, -1) {
		name := strings.ToLower(m[1])
		if slices.Contains(own, name) || regexp.MustCompile(`(?i)\bdrop\s+index\s+(?:concurrently\s+)?(?:if\s+exists\s+)?`+name+`\b`).MatchString(text) {
			replaced = append(replaced, regexp.MustCompile(`(?i)^\s*(drop\s+(table|index)(\s+concurrently)?(\s+if\s+exists)?|alter\s+(table|index)\s+\w+\s+rename\s+to|alter\s+table)\s+`+name))
		}
	}
	for _, statement := range strings.Split(text, ";") {
		statement = strings.TrimSpace(statement)
		if (drops.MatchString(statement) || renames.MatchString(statement)) && slices.ContainsFunc(replaced, func(r *regexp.Regexp) bool { return r.MatchString(statement) }) {
			continue
		}
		if m := altered.FindStringSubmatch(statement); m != nil && slices.Contains(own, strings.ToLower(m[1])) {
			continue
		}
		if m := rewrite.FindStringSubmatch(statement); m != nil && (slices.Contains(own, strings.ToLower(m[2])) || m[2] == "schema_compatibility") {
			continue
		}
		bad := drops.MatchString(statement) || renames.MatchString(statement) || retypes.MatchString(statement) || needs.MatchString(statement) ||
			revokes.MatchString(statement) || rewrite.MatchString(statement)
		for _, column := range adds.FindAllString(statement, -1) {
			column = strings.ToLower(column)
			bad = bad || strings.Contains(column, "not null") && !strings.Contains(column, "default") && !strings.Contains(column, "generated")
		}
		if bad {
			found = append(found, strings.Join(strings.Fields(statement), " "))
		}
	}
	return found
}

func TestTakenAwayIsSeen(t *testing.T) {
	for sql, bad := range map[string]bool{
		"DROP TABLE intents":                                                                            true,
		"ALTER TABLE intents DROP COLUMN tbs":                                                           true,
		"alter table intents\n rename tbs to body":                                                      true,
		"ALTER TABLE intents ALTER COLUMN tbs TYPE text":                                                true,
		"ALTER TABLE intents ALTER tbs SET DATA TYPE text":                                              true,
		"ALTER TABLE intents ALTER COLUMN x SET NOT NULL":                                               true,
		"ALTER TABLE intents ADD COLUMN x text NOT NULL":                                                true,
		"ALTER TABLE intents ADD COLUMN y text, ADD COLUMN x text NOT NULL":                             true,
		"REVOKE INSERT ON intents FROM chancery_service":                                                true,
		"DELETE FROM intents":                                                                           true,
		"UPDATE intents SET kind = 'x'":                                                                 true,
		"DROP FUNCTION admit_intents(bytea[])":                                                          true,
		"ALTER TABLE intents ADD COLUMN x text":                                                         false,
		"ALTER TABLE intents ADD COLUMN x text NOT NULL DEFAULT ''":                                     false,
		"ALTER TABLE intents ALTER COLUMN x DROP NOT NULL":                                              false,
		"CREATE TABLE mine (x text NOT NULL); ALTER TABLE mine ALTER x SET NOT NULL":                    false,
		"-- DROP TABLE intents\nSELECT 1":                                                               false,
		"-- replaces intents: none is made\nDROP TABLE intents":                                         true,
		"-- replaces intents: a table like it\nDROP TABLE orphans; CREATE TABLE intents (serial bytea)": true,
		"-- replaces intents: a table like it\nALTER TABLE intents RENAME TO intents_old; CREATE TABLE intents (serial bytea)": false,
		"-- replaces intents_age: another serves\nDROP INDEX intents_age":                                                      false,
		"CREATE FUNCTION f() RETURNS void AS $$ BEGIN DELETE FROM intents; END $$":                                             false,
		"CREATE INDEX i ON intents (serial)":                                                                                   false,
		"REVOKE ALL ON FUNCTION f() FROM PUBLIC":                                                                               false,
		"GRANT SELECT, INSERT, DELETE, UPDATE (taken) ON intents TO chancery_service":                                          false,
	} {
		if found := takenAway(sql); (len(found) > 0) != bad {
			t.Errorf("%q: found %q", sql, found)
		}
	}
}
