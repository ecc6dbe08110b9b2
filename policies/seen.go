package policies

import (
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/csr"
)

// What the rules looked at, in words for explain. Everything from outside is quoted.

func seenProfile(e *evaluation) string   { return quote(e.Profile) }
func seenNamespace(e *evaluation) string { return quote(e.Namespace.Name) }
func seenIssuer(e *evaluation) string    { return quote(e.Issuer.Name) }

func seenKey[E keyed](e E) string {
	k := e.publicKey()
	switch k.Algorithm {
	case csr.ECDSA:
		return "ECDSA " + k.Curve
	case csr.RSA:
		return fmt.Sprintf("RSA %d bits", k.Bits)
	}
	return string(k.Algorithm)
}

func seenExponent[E keyed](e E) string {
	k := e.publicKey()
	if k.Algorithm != csr.RSA {
		return seenKey(e)
	}
	exponent := new(big.Int).SetBytes(k.Exponent)
	if exponent.BitLen() > 64 {
		return fmt.Sprintf("exponent of %d bits", exponent.BitLen())
	}
	return "exponent " + exponent.String()
}

func seenSubject(e *evaluation) string {
	words := make([]string, 0, maxListed+1)
	for i, a := range e.subject {
		if i > maxListed {
			break
		}
		words = append(words, attributeName(a.OID)+"="+quote(a.Value))
	}
	if len(words) == 0 {
		return "no subject"
	}
	return some(words)
}

// seenNames shows the names that were asked for, as they were written.
func seenNames(kinds ...string) func(*evaluation) string {
	return func(e *evaluation) string {
		asked := e.names.asked
		var words []string
		for _, kind := range kinds {
			switch kind {
			case "dns":
				words = append(words, quoted("dns", asked.DNS)...)
			case "email":
				words = append(words, quoted("email", asked.Email)...)
			case "uri":
				words = append(words, quoted("uri", asked.URI)...)
			case "ip":
				for i := range min(len(asked.IP), maxListed+1) {
					words = append(words, "ip:"+asked.IP[i].String())
				}
			case "other":
				for i := range min(len(asked.Other), maxListed+1) {
					words = append(words, asked.Other[i].Kind)
				}
			}
		}
		if len(words) == 0 {
			return "none"
		}
		return some(words)
	}
}

// seenNamesAndSubject shows them for the rule that looks at both.
func seenNamesAndSubject(e *evaluation) string {
	return seenNames("dns", "ip", "email", "uri")(e) + "; " + seenSubject(e)
}

func quoted(kind string, all []string) []string {
	words := make([]string, 0, maxListed+1)
	for i := range min(len(all), maxListed+1) {
		words = append(words, kind+":"+quote(all[i]))
	}
	return words
}

func seenCount(e *evaluation) string {
	return fmt.Sprintf("%d names; from %d to %d are allowed", e.names.asked.Len(), e.profile.names.min, e.profile.names.max)
}

func seenBasicConstraints(e *evaluation) string {
	asked := e.CSR.Extensions().BasicConstraints
	switch {
	case asked == nil:
		return "not asked for"
	case asked.CA:
		return "CA:TRUE"
	}
	return "CA:FALSE"
}

func seenKeyUsage(e *evaluation) string {
	v := e.requestValue().KeyUsage
	if e.CSR.Extensions().KeyUsage == nil {
		return "not asked for"
	}
	return strings.Join(v, ", ")
}

func seenExtKeyUsage(e *evaluation) string {
	if e.CSR.Extensions().ExtKeyUsage == nil {
		return "not asked for"
	}
	return some(e.requestValue().ExtKeyUsage)
}

func seenExtensions(e *evaluation) string { return someOr(e.requestValue().Extensions, "no others") }

func seenAttributes(e *evaluation) string { return someOr(e.requestValue().Attributes, "no others") }

func someOr(all []string, none string) string {
	if len(all) == 0 {
		return none
	}
	return some(all)
}

func seenValidity(e *evaluation) string {
	asked := "nothing asked for"
	if e.Validity != 0 {
		asked = formatDuration(e.Validity) + " asked for"
	}
	notBefore, notAfter := e.period()
	return fmt.Sprintf("%s, %s at most: %s to %s", asked, formatDuration(e.profile.validity.maxAt(e.Now)),
		notBefore.Format(time.RFC3339), notAfter.Format(time.RFC3339))
}

func seenSignature(e *evaluation) string { return string(e.CSR.SignatureAlgorithm()) }
