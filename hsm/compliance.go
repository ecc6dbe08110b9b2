package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Requirement is what a token, and a key in it, must be for what it is used for. The zero value requires nothing.
type Requirement struct {
	Hardware         bool `json:"hardware,omitempty"`          // the slot is a hardware slot (CKF_HW_SLOT)
	NeverExtractable bool `json:"never_extractable,omitempty"` // CKA_NEVER_EXTRACTABLE and CKA_ALWAYS_SENSITIVE
	Local            bool `json:"local,omitempty"`             // CKA_LOCAL: generated in the token
	FIPSLevel        int  `json:"fips_140_level,omitempty"`    // least level of FIPS 140 that is declared for the token; 0 for none
}

// And is what meets both requirements.
func (r Requirement) And(other Requirement) Requirement {
	return Requirement{
		Hardware:         r.Hardware || other.Hardware,
		NeverExtractable: r.NeverExtractable || other.NeverExtractable,
		Local:            r.Local || other.Local,
		FIPSLevel:        max(r.FIPSLevel, other.FIPSLevel),
	}
}

// Covers tells whether whatever meets r meets the other requirement too.
func (r Requirement) Covers(other Requirement) bool { return r.And(other) == r }

// String names what is required as the configuration does: "hardware, fips_140_level 3".
func (r Requirement) String() string {
	var words []string
	for _, one := range []struct {
		required bool
		words    string
	}{
		{r.Hardware, "hardware"},
		{r.NeverExtractable, "never_extractable"},
		{r.Local, "local"},
		{r.FIPSLevel > 0, fmt.Sprintf("fips_140_level %d", r.FIPSLevel)},
	} {
		if one.required {
			words = append(words, one.words)
		}
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// Declaration is what the operator says of a token because the token does not: that its module has a FIPS 140 certificate.
type Declaration struct {
	FIPSLevel       int    `json:"fips_140_level,omitempty"`       // 1 to 4
	FIPSCertificate string `json:"fips_140_certificate,omitempty"` // number of the certificate in NIST's CMVP list
}

// ErrNotCompliant means that a token or a key is not what is required of it.
var ErrNotCompliant = errors.New("the requirement is not met")

// CheckToken returns an error wrapping ErrNotCompliant, which names everything that the token lacks.
func (r Requirement) CheckToken(t TokenInfo, d Declaration) error {
	var lacks []string
	if r.Hardware && !t.Hardware {
		lacks = append(lacks, "its slot is no hardware slot (CKF_HW_SLOT)")
	}
	switch {
	case r.FIPSLevel == 0:
	case d.FIPSLevel == 0 || d.FIPSCertificate == "":
		lacks = append(lacks, fmt.Sprintf("FIPS 140 level %d is required, and no level with the number of its certificate is declared", r.FIPSLevel))
	case d.FIPSLevel < r.FIPSLevel:
		lacks = append(lacks, fmt.Sprintf("FIPS 140 level %d is required, and level %d is declared", r.FIPSLevel, d.FIPSLevel))
	}
	return lacking(fmt.Sprintf("token %q", t.Label), lacks)
}

// CheckKey returns an error wrapping ErrNotCompliant, which names everything that the key lacks. What the token does not tell is lacking.
func (r Requirement) CheckKey(a Attributes) error {
	var conditions []condition
	if r.Local {
		conditions = append(conditions, condition{pkcs11.CKA_LOCAL, true})
	}
	if r.NeverExtractable {
		conditions = append(conditions, condition{pkcs11.CKA_NEVER_EXTRACTABLE, true}, condition{pkcs11.CKA_ALWAYS_SENSITIVE, true})
	}
	return lacking("the key with "+a.ref().String(), a.wrong(conditions))
}

// Terms are on what a key is taken, each time it is found: a token that was lost may come back as another.
type Terms struct {
	// Restored accepts a key that was restored into the token (see Attributes.KeptHere); it is a decision of whoever configures it.
	Restored bool
	// Require is what the token and the key must be besides, and Declared what the operator says of the token.
	Require  Requirement
	Declared Declaration
}

func (t Terms) check(token TokenInfo, a Attributes) error {
	kept := a.Kept
	if t.Restored {
		kept = a.KeptHere
	}
	if err := kept(); err != nil {
		return err
	}
	return errors.Join(t.Require.CheckToken(token, t.Declared), t.Require.CheckKey(a))
}

func lacking(what string, lacks []string) error {
	if len(lacks) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w: %s", what, ErrNotCompliant, strings.Join(lacks, "; "))
}
