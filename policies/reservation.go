package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// ReservationKind says what a reservation bounds.
type ReservationKind string

// The kinds of reservations.
const (
	ReserveQuota ReservationKind = "quota" // how many certificates are issued in a length of time
	ReserveKey   ReservationKind = "key"   // how often a key is certified
)

// Reservation is what must still hold when the intent is recorded, though it may change between the decision and then: the store
// counts, under Kind, Scope and Key, what was issued within the window that ends now, and refuses the intent that would be one more
// than Limit.
type Reservation struct {
	Kind   ReservationKind
	Scope  string        // what is counted together, such as "profile/tls-server/namespace"
	Key    string        // whose count it is: a namespace, a person, a name, or the hex of a key's SHA-256
	Limit  int           // at least 1
	Window time.Duration // 0: since ever
}

// Usage is how much of a reservation was used when the facts were gathered: for an early answer, not for enforcement.
type Usage struct {
	Kind  ReservationKind
	Scope string
	Key   string
	Used  int
}

// Taken is a reservation with how much of it is used.
type Taken struct {
	Reservation
	Used int
}

// quotaOf says whose certificates a quota counts together.
type quotaOf string

const (
	quotaOfNamespace quotaOf = "namespace"
	quotaOfRequester quotaOf = "requester"
	quotaOfName      quotaOf = "name"
)

// quotaPolicy bounds the number of certificates of a profile. Its zero value bounds nothing.
type quotaPolicy struct {
	certificates int // 0: no bound
	per          time.Duration
	of           quotaOf
}

// keyScope counts keys over all profiles and namespaces: a key belongs to one certificate, whatever it was asked for under.
const keyScope = "key"

// Reservations are what a grant of the request would reserve, so that what was used of them can be looked up beforehand. They depend
// on the profile, the requester and the request alone.
func (s *Set) Reservations(r Request) []Reservation {
	if s == nil || r.CSR == nil {
		return nil
	}
	p := s.profiles[r.Profile]
	if p == nil || p.quota.certificates == 0 && !p.keys.once {
		return nil
	}
	e := evaluation{Request: r, profile: p, key: r.CSR.Key(), names: normalise(r.CSR.Names())}
	return e.reservations()
}

// reservations are made anew by everyone who asks: they are few, and most profiles have none.
func (e *evaluation) reservations() []Reservation {
	var all []Reservation
	if q := e.profile.quota; q.certificates > 0 {
		scope := "profile/" + e.profile.name + "/" + string(q.of)
		for _, key := range e.quotaKeys(q.of) {
			all = append(all, Reservation{Kind: ReserveQuota, Scope: scope, Key: key, Limit: q.certificates, Window: q.per})
		}
	}
	if e.profile.keys.once {
		sum := sha256.Sum256(e.key.SPKI)
		all = append(all, Reservation{Kind: ReserveKey, Scope: keyScope, Key: hex.EncodeToString(sum[:]), Limit: 1})
	}
	return all
}

func (e *evaluation) quotaKeys(of quotaOf) []string {
	switch of {
	case quotaOfName:
		return e.names.written()
	case quotaOfRequester:
		return []string{requesterKey(e.Actor)}
	default:
		return []string{e.Namespace.Name}
	}
}

// requesterKey names who asks: the person, or the credential where nobody stands behind it.
func requesterKey(a access.Actor) string {
	if a.Person != "" {
		return "person/" + a.Person
	}
	return "credential/" + a.ID
}

// used is what is known to be used of a reservation.
func (e *evaluation) used(r Reservation) int {
	i := slices.IndexFunc(e.Usage, func(u Usage) bool { return u.Kind == r.Kind && u.Scope == r.Scope && u.Key == r.Key })
	if i < 0 {
		return 0
	}
	return e.Usage[i].Used
}
