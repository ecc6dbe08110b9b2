// Package direct guards the way past the operations of the package hsm to the library beneath them. Only what lies below hsm can name a
// Pass, and only hsm/probe, which asks a library what it can do, and hsm/hsmtest do.
package direct

// Pass is what hsm's Token.Direct asks for.
type Pass struct{}
