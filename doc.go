// Package chancery is a certificate authority whose keys never leave the HSM.
//
// This directory holds no code: each room of the house is a package of its own, and house_test.go holds the floor plan, which says
// which room may lean on which, and which one uses a given outside module. The program is cmd/chancery.
package chancery
