// Package tricky reads certificates in many ways, for the test of what finds out what lints read.
package tricky

import (
	"fmt"
	"sort"
	"time"

	"github.com/zmap/zcrypto/encoding/asn1"
	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zcrypto/x509/pkix"
	"github.com/zmap/zlint/v3/util"
)

// The name of each function says, before the underscore, what it reads beside the shape.

func nothing_ShapeAlone(c *x509.Certificate) bool { return c.IsCA && len(c.ExtKeyUsage) > 1 }

func nothing_Presence(c *x509.Certificate) bool {
	return util.IsExtInCert(c, util.SubjectAlternateNameOID) && util.GetExtFromCert(c, util.SubjectAlternateNameOID).Critical
}

func nothing_KnownValue(c *x509.Certificate) bool {
	return len(util.GetExtFromCert(c, util.BasicConstOID).Value) > 2
}

func nothing_OneOfAll(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(util.KeyUsageOID) {
			return len(e.Value) > 3
		}
	}
	return false
}

func nothing_KindOfKey(c *x509.Certificate) bool {
	_, ok := c.PublicKey.(*x509.AugmentedECDSA)
	return ok
}

func nothing_LocalWork(c *x509.Certificate) bool {
	seen := map[string]int{}
	for _, u := range c.CRLDistributionPoints {
		seen[u]++
	}
	return len(seen) == len(c.CRLDistributionPoints)
}

func nothing_NoneOfThese(c *x509.Certificate) bool {
	return len(c.DNSNames) == 0 && c.URIs == nil && c.Subject.CommonName != ""
}

func dnsNames_Read(c *x509.Certificate) bool { return len(c.DNSNames) > 1 }

func dnsNames_ThroughAnother(c *x509.Certificate) bool { return third(1, c) }

func third(n int, c *x509.Certificate) bool { return c.DNSNames[n] == "" }

func otherAttributes_Read(c *x509.Certificate) bool {
	return util.TypeInName(&c.Subject, util.OrganizationNameOID)
}

func aSubject_Read(c *x509.Certificate) bool { return c.Subject.CommonName == "a" }

func aSubject_Whole(c *x509.Certificate) string { return fmt.Sprint(c.Subject) }

func everything_Serial(c *x509.Certificate) bool { return c.SerialNumber != nil }

func everything_Raw(c *x509.Certificate) bool { return len(c.Raw) > 1000 }

func everything_Clock(c *x509.Certificate) bool { return c.IsCA && time.Now().Unix() > 0 }

func everything_Whole(c *x509.Certificate) bool { d := *c; return d.IsCA }

func everything_Interface(c *x509.Certificate) string { return fmt.Sprint(c) }

var kept *x509.Certificate

func everything_Kept(c *x509.Certificate) bool { kept = c; return c.IsCA }

func everything_InList(c *x509.Certificate) bool {
	for _, d := range []*x509.Certificate{c} {
		if d.IsCA {
			return true
		}
	}
	return false
}

func everything_Closure(c *x509.Certificate) bool { return func() bool { return c.IsCA }() }

var predicate = func(c *x509.Certificate) bool { return c.IsCA }

func everything_Unknown(c *x509.Certificate) bool { return predicate(c) }

var count int

func everything_Counting(c *x509.Certificate) bool { count++; return c.IsCA }

func everything_CountRead(c *x509.Certificate) bool { return c.IsCA && count > 2 }

var words = []string{"b", "a"}

func reorder() { sort.Strings(words) }

func everything_WordsRead(c *x509.Certificate) bool { return c.IsCA && words[0] == "a" }

var table = map[string]bool{}

func remember(to map[string]bool, s string) { to[s] = true }

func rememberInTable(s string) { remember(table, s) }

func everything_TableRead(c *x509.Certificate) bool { return c.IsCA && table["a"] }

var changing = asn1.ObjectIdentifier{2, 5, 29, 19}

func change() { changing = util.SubjectAlternateNameOID }

func everything_ChangingIdentifier(c *x509.Certificate) bool {
	return len(util.GetExtFromCert(c, changing).Value) > 2
}

func everything_VaryingValue(c *x509.Certificate) bool {
	return len(util.GetExtFromCert(c, util.SubjectAlternateNameOID).Value) > 2
}

func everything_GivenIdentifier(c *x509.Certificate) bool { return given(c, util.BasicConstOID) }

func given(c *x509.Certificate, id asn1.ObjectIdentifier) bool {
	return len(util.GetExtFromCert(c, id).Value) > 2
}

func everything_AnyOfAll(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(util.SubjectAlternateNameOID) || len(e.Value) > 3 {
			return true
		}
	}
	return false
}

func everything_OtherOfAll(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(util.KeyUsageOID) {
			e = c.Extensions[0]
			return len(e.Value) > 3
		}
	}
	return false
}

func everything_OutsideOfAll(c *x509.Certificate) bool {
	n := 0
	for _, e := range c.Extensions {
		if e.Id.Equal(util.KeyUsageOID) {
			n++
		}
		n += len(e.Value)
	}
	return n > 3
}

func everything_NotOfAll(c *x509.Certificate) bool {
	for _, e := range c.Extensions {
		if !e.Id.Equal(util.KeyUsageOID) {
			return len(e.Value) > 3
		}
	}
	return false
}

func everything_NextOfAll(c *x509.Certificate) bool {
	for i, e := range c.Extensions {
		if e.Id.Equal(util.KeyUsageOID) {
			return length(c.Extensions[i+1]) > 3
		}
	}
	return false
}

func length(e pkix.Extension) int { return len(e.Value) }

func everything_ByName(c *x509.Certificate) bool { return len(c.ExtensionsMap["2.5.29.19"].Value) > 2 }

func everything_Key(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(*x509.AugmentedECDSA)
	return ok && key.Pub.X.Sign() > 0
}

func everything_Sorting(c *x509.Certificate) bool { sort.Strings(c.OCSPServer); return c.IsCA }

func everything_Writing(c *x509.Certificate) bool { c.IsCA = true; return c.IsCA }

func everything_WritingInto(c *x509.Certificate) bool { c.OCSPServer[0] = ""; return c.IsCA }

func everything_MapOrder(c *x509.Certificate) string {
	seen := map[string]int{}
	for _, u := range c.CRLDistributionPoints {
		seen[u]++
	}
	for u := range seen {
		return u
	}
	return ""
}

func everything_Deferred(c *x509.Certificate) bool { defer reorder(); return c.IsCA }

func everything_Channel(c *x509.Certificate) bool {
	done := make(chan bool, 1)
	go func() { done <- true }()
	return c.IsCA && <-done
}
