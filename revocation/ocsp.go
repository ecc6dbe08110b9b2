package revocation

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

const ocspRequestType = "application/ocsp-request"

// ask asks a responder about one certificate, and holds the answer against the record.
func (r *run) ask(a Authority, q question) {
	answer, err := r.status(a, q.url, new(big.Int).SetBytes(q.record.Serial))
	if err != nil {
		r.unusable(OCSPUnusable, a.Name, q.url, err)
		return
	}
	r.mu.Lock()
	r.report.OCSPAnswers++
	r.mu.Unlock()
	if ocspDiffers(q.record, answer) != "" {
		r.suspect(suspicion{authority: a, serial: q.record.Serial, source: q.url, ocsp: true})
	}
}

func (r *run) askAgain(s suspicion, record Record, known bool) {
	answer, err := r.status(s.authority, s.source, new(big.Int).SetBytes(s.serial))
	if err != nil {
		r.unusable(OCSPUnusable, s.authority.Name, s.source, err)
		return
	}
	kind := ocspDiffers(record, answer)
	if kind == "" || !known {
		return
	}
	r.judge(Difference{
		Kind: kind, Issuer: s.authority.Name, Serial: hex.EncodeToString(s.serial), Source: s.source,
		Detail: fmt.Sprintf("on record: %s; OCSP: %s", record.words(), ocspWords(answer)),
	}, record)
}

func ocspDiffers(record Record, answer *ocsp.Response) string {
	revoked := answer.Status == ocsp.Revoked
	switch {
	case record.Revoked && !revoked:
		return OCSPMissing
	case !record.Revoked && answer.Status != ocsp.Good:
		return OCSPExtra
	case revoked && (answer.RevocationReason != record.Reason || !answer.RevokedAt.Equal(record.RevokedAt.Truncate(time.Second))):
		return OCSPDiffers
	}
	return ""
}

func ocspWords(answer *ocsp.Response) string {
	switch answer.Status {
	case ocsp.Good:
		return "good"
	case ocsp.Revoked:
		return words(answer.RevocationReason, answer.RevokedAt, time.Time{})
	}
	return "unknown"
}

// status asks a responder and checks the answer as a client would (RFC 6960, section 3.2).
func (r *run) status(a Authority, url string, serial *big.Int) (*ocsp.Response, error) {
	asked := &x509.Certificate{SerialNumber: serial}
	request, err := ocsp.CreateRequest(asked, a.Certificate, nil)
	if err != nil {
		return nil, err
	}
	data, err := r.fetch(http.MethodPost, url, ocspRequestType, request)
	if err != nil {
		return nil, err
	}
	return ReadOCSP(data, asked, a.Certificate, r.Now(), time.Minute)
}

// ReadOCSP reads the answer of a responder as a client must (RFC 6960, section 3.2): it is about the certificate, signed by the issuer or by
// a responder whom the issuer made one (OCSPSigning) and who still is one (the library that reads it looks at neither), and holds now. ahead
// is how far the responder's clock may be ahead.
func ReadOCSP(data []byte, certificate, issuer *x509.Certificate, now time.Time, ahead time.Duration) (*ocsp.Response, error) {
	answer, err := ocsp.ParseResponseForCert(data, certificate, issuer)
	if err != nil {
		return nil, err
	}
	switch {
	case answer.Certificate != nil && !slices.Contains(answer.Certificate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, errors.New("the answer is signed by a certificate that is no responder's")
	case answer.Certificate != nil && (answer.Certificate.NotBefore.After(now.Add(ahead)) || now.After(answer.Certificate.NotAfter)):
		return nil, fmt.Errorf("the certificate of the responder is valid from %s to %s alone",
			answer.Certificate.NotBefore.Format(time.RFC3339), answer.Certificate.NotAfter.Format(time.RFC3339))
	case answer.ThisUpdate.After(now.Add(ahead)):
		return nil, fmt.Errorf("the answer is of the future, %s; check the clock", answer.ThisUpdate.Format(time.RFC3339))
	case !answer.NextUpdate.IsZero() && !answer.NextUpdate.After(now):
		return nil, fmt.Errorf("the answer has run out, at %s", answer.NextUpdate.Format(time.RFC3339))
	}
	return answer, nil
}

// probe asks about a certificate that was never issued: its status must not be good (Baseline Requirements, section 4.9.10).
func (r *run) probe(a Authority, url string) error {
	serial, err := r.randomSerial()
	if err != nil {
		return err
	}
	answer, err := r.status(a, url, serial)
	var refusal ocsp.ResponseError
	switch {
	case errors.As(err, &refusal): // a responder may decline instead (RFC 5019, section 2.2.3)
	case err != nil:
		r.unusable(OCSPUnusable, a.Name, url, err)
	case answer.Status == ocsp.Good:
		r.tell(Difference{
			Kind: OCSPGuesses, Issuer: a.Name, Serial: hex.EncodeToString(serial.Bytes()), Source: url,
			Detail: "OCSP says good of a serial that was never issued",
		})
	}
	return nil
}
