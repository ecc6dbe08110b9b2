package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxList      = 64 << 20 // octets of a CRL that is read
	fetchTimeout = 30 * time.Second
)

// Lists are the CRLs of other authorities, from files and URLs. It fails closed: a certificate whose issuer has no list that is in order
// and current is refused.
type Lists struct {
	sources []string
	client  *http.Client
	current atomic.Pointer[[]*list] // in the order of sources; nil where none was ever read
}

// list is a CRL, made for looking up.
type list struct {
	crl     *x509.RevocationList
	revoked map[string]struct{} // serials, octets of the number
	// signedBy is the certificate by which the signature was verified; nil: by none yet. A request does not digest the list again.
	signedBy atomic.Pointer[x509.Certificate]
}

// by tells whether the list is signed by an authority.
func (l *list) by(issuer *x509.Certificate) bool {
	if known := l.signedBy.Load(); known != nil && known.Equal(issuer) {
		return true
	}
	if l.crl.CheckSignatureFrom(issuer) != nil {
		return false
	}
	l.signedBy.Store(issuer)
	return true
}

// NewLists makes Lists of paths and of http and https URLs. Nothing is read before Refresh. client fetches; nil: one that waits 30 seconds.
func NewLists(sources []string, client *http.Client) *Lists {
	if client == nil {
		client = &http.Client{Timeout: fetchTimeout}
	}
	l := &Lists{sources: sources, client: client}
	none := make([]*list, len(sources))
	l.current.Store(&none)
	return l
}

// Refresh reads all lists again. What cannot be read stays as it was, until it has ended, and is told.
func (l *Lists) Refresh(ctx context.Context) error {
	fresh := append([]*list{}, *l.current.Load()...)
	var failed []error
	for i, source := range l.sources {
		read, err := l.read(ctx, source)
		if err == nil && fresh[i] != nil {
			err = notOlder(read.crl, fresh[i].crl)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("reading the CRL %s: %w", source, err))
			continue
		}
		fresh[i] = read
	}
	l.current.Store(&fresh)
	return errors.Join(failed...)
}

// notOlder refuses a list that says less than the one before: somebody plays an old one back, in which a certificate is not revoked yet.
// The numbers of an authority rise (RFC 5280, section 5.2.3). One that was built anew may begin again with low ones; its lists are told from
// old ones by their time, which no list that it signed before can have.
func notOlder(read, before *x509.RevocationList) error {
	numbered := read.Number != nil && before.Number != nil
	switch {
	case numbered && read.Number.Cmp(before.Number) >= 0, read.ThisUpdate.After(before.ThisUpdate):
		return nil
	case !numbered && read.ThisUpdate.Equal(before.ThisUpdate):
		return nil
	}
	return fmt.Errorf("it is older than the list before: number %s of %s after number %s of %s; when the authority numbers its lists anew, "+
		"have it issue one now: a list with a later thisUpdate is taken", number(read), read.ThisUpdate.UTC().Format(time.RFC3339),
		number(before), before.ThisUpdate.UTC().Format(time.RFC3339))
}

func number(crl *x509.RevocationList) string {
	if crl.Number == nil {
		return "none"
	}
	return crl.Number.String()
}

func (l *Lists) read(ctx context.Context, source string) (*list, error) {
	data, err := l.octets(ctx, source)
	if err != nil {
		return nil, err
	}
	return parseList(data)
}

func (l *Lists) octets(ctx context.Context, source string) ([]byte, error) {
	if !strings.HasPrefix(source, "http://") && !strings.HasPrefix(source, "https://") {
		f, err := os.Open(source)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return limited(f)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
	if err != nil {
		return nil, err
	}
	answer, err := l.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", answer.Status)
	}
	return limited(answer.Body)
}

func limited(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err == nil && len(data) > maxList {
		err = fmt.Errorf("it is longer than %d octets", maxList)
	}
	return data, err
}

// parseList reads a CRL in DER or PEM. A list with a critical extension speaks of some certificates alone, or otherwise in a way that is
// not understood here (RFC 5280, section 5.2), and is refused.
func parseList(data []byte) (*list, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("it is not one CRL in PEM")
		}
		data = block.Bytes
	}
	crl, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, err
	}
	for _, extension := range crl.Extensions {
		if extension.Critical {
			return nil, fmt.Errorf("it has the critical extension %s: give the complete list", extension.Id)
		}
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("it does not say when it ends")
	}
	l := &list{crl: crl, revoked: make(map[string]struct{}, len(crl.RevokedCertificateEntries))}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("an entry has the critical extension %s: indirect lists are not read", extension.Id)
			}
		}
		l.revoked[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return l, nil
}

// check refuses a chain of which a certificate is revoked, or of which nobody can say that it is not.
func (l *Lists) check(chain []*x509.Certificate, now time.Time) error {
	for i, one := range chain[:len(chain)-1] {
		found, issuer := false, chain[i+1]
		for _, list := range *l.current.Load() {
			if list == nil || !bytes.Equal(list.crl.RawIssuer, issuer.RawSubject) || now.After(list.crl.NextUpdate) ||
				!list.by(issuer) {
				continue
			}
			found = true
			if _, revoked := list.revoked[string(one.SerialNumber.Bytes())]; revoked {
				return fmt.Errorf("serial %x of %s is revoked", one.SerialNumber, issuer.Subject)
			}
		}
		if !found {
			return fmt.Errorf("no current CRL of %s says how its certificates stand", issuer.Subject)
		}
	}
	return nil
}
