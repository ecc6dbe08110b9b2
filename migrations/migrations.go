// Package migrations holds the database's schema as numbered SQL files in goose's form. It only embeds them: storage runs them.
//
// A file that has been released never changes; what comes later is a new file. Migrations add to facts and never rewrite them, and
// a replica of the previous version must be able to go on working on the new schema.
package migrations

import "embed"

// FS holds the migrations, one file each, named by number and subject.
//
//go:embed *.sql
var FS embed.FS
