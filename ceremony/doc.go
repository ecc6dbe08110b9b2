// Package ceremony makes roots, intermediates and the CRLs of offline authorities from one reviewed file.
//
// It owns the plan (the file, read strictly and validated whole), the procedure (Run), the transcript (a hash-chained record that is
// durable before anything depends on it) and the bundles (what `chancery authority add` takes over). It owns neither the keys, which
// stay in the token behind hsm, nor the rules of what an authority may be, which are policies', nor the bytes that are signed, which
// are issuance's.
//
// A ceremony is played twice: first in memory with throw-away keys, so that whatever the plan, the policies or the linter refuse is
// refused before a key exists; then at the token. It is not resumed. When it fails, its transcript says how far it came; begin again
// with another output directory and other key labels, and destroy the keys of the failed one by their labels.
package ceremony
