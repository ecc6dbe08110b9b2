package access

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"
)

// canonical is a namespace as JSON: kept on record, and digested for the audit log. Spans are in seconds.
type canonical struct {
	Name     string         `json:"name"`
	DNS      []string       `json:"dns,omitempty"`
	IP       []netip.Prefix `json:"ip,omitempty"`
	Email    []string       `json:"email,omitempty"`
	URI      []string       `json:"uri,omitempty"`
	Subjects []string       `json:"subjects,omitempty"`
	Profiles []string       `json:"profiles,omitempty"`
	Quotas   []limit        `json:"quotas,omitempty"`
	Rates    []limit        `json:"rates,omitempty"`
}

type limit struct {
	Profile string `json:"profile,omitempty"`
	Count   int    `json:"count"`
	Per     int64  `json:"per"`
}

// Canonical is the namespace as JSON, the same octets for the same namespace.
func (n Namespace) Canonical() []byte {
	c := canonical{Name: n.Name, DNS: n.DNS, IP: n.IP, Email: n.Email, URI: n.URI, Subjects: n.Subjects, Profiles: n.Profiles}
	for _, q := range n.Quotas {
		c.Quotas = append(c.Quotas, limit{q.Profile, q.Certificates, int64(q.Per / time.Second)})
	}
	for _, r := range n.Rates {
		c.Rates = append(c.Rates, limit{r.Profile, r.Requests, int64(r.Per / time.Second)})
	}
	text, err := json.Marshal(c)
	if err != nil { // strings, numbers and prefixes always have a form
		panic(fmt.Sprintf("access: encoding namespace %q: %v", n.Name, err))
	}
	return text
}

// ParseCanonical reads a namespace back from its canonical form. It does not validate it.
func ParseCanonical(text []byte) (Namespace, error) {
	var c canonical
	if err := json.Unmarshal(text, &c); err != nil {
		return Namespace{}, fmt.Errorf("reading a namespace: %w", err)
	}
	n := Namespace{Name: c.Name, DNS: c.DNS, IP: c.IP, Email: c.Email, URI: c.URI, Subjects: c.Subjects, Profiles: c.Profiles}
	for _, l := range c.Quotas {
		n.Quotas = append(n.Quotas, Quota{l.Profile, l.Count, time.Duration(l.Per) * time.Second})
	}
	for _, l := range c.Rates {
		n.Rates = append(n.Rates, Rate{l.Profile, l.Count, time.Duration(l.Per) * time.Second})
	}
	return n, nil
}
