package probe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// certificates stores a certificate whose key is thrown away.
func (p *run) certificates(ctx context.Context) {
	p.check(ctx, want{"other", "CKO_CERTIFICATE objects", "", "certificates are kept outside the token"}, func(s session) (string, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", err
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: s.ref("certificate").Label}, NotAfter: p.Now()}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return "", err
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return "", err
		}
		serial, err := asn1.Marshal(certificate.SerialNumber)
		if err != nil {
			return "", err
		}
		object, err := s.ctx.CreateObject(s.handle, s.named("certificate",
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE), pkcs11.NewAttribute(pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKC_X_509),
			pkcs11.NewAttribute(pkcs11.CKA_SUBJECT, certificate.RawSubject), pkcs11.NewAttribute(pkcs11.CKA_ISSUER, certificate.RawIssuer),
			pkcs11.NewAttribute(pkcs11.CKA_SERIAL_NUMBER, serial), pkcs11.NewAttribute(pkcs11.CKA_VALUE, der)))
		if err != nil {
			return "", err
		}
		back, err := s.read(object, pkcs11.CKA_VALUE)
		if err == nil && !bytes.Equal(back, der) {
			err = errors.New("it came back changed")
		}
		return "", err
	})
}

// sessions opens sessions until the token refuses, or until there are enough of them.
func (p *run) sessions(ctx context.Context) {
	enough := 4 * p.Sessions
	name := fmt.Sprintf("%d sessions at once", enough)
	p.check(ctx, want{
		"other", name, "", "configure fewer sessions than that (twice hsm.sessions, and two more for housekeeping)",
	}, func(s session) (detail string, err error) {
		var open []pkcs11.SessionHandle
		defer func() {
			for _, handle := range open {
				err = errors.Join(err, s.ctx.CloseSession(handle))
			}
		}()
		slot := p.Token.Info().Slot
		for len(open) < enough {
			handle, err := s.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return "", fmt.Errorf("after %d more: %w", len(open), err)
			}
			open = append(open, handle)
		}
		return fmt.Sprintf("%d besides those in use", len(open)), nil
	})
}

// speed signs for a while at 1, 2, 4 and so on sessions.
func (p *run) speed(ctx context.Context) {
	if p.Speed <= 0 {
		return
	}
	for _, m := range []scheme{schemes[0], schemes[5]} {
		if !p.parents[m.name] {
			continue
		}
		for n := 1; n <= p.Sessions && ctx.Err() == nil; n *= 2 {
			if p.Starting != nil {
				p.Starting(fmt.Sprintf("speed of %s with %d sessions", m.name, n))
			}
			signed, took, err := p.measure(ctx, m, n)
			if err != nil {
				p.report.Checks = append(p.report.Checks, Check{
					Group: "speed", Name: fmt.Sprintf("%s with %d sessions", m.name, n), Outcome: Fails, CKR: answer(err), Detail: err.Error(),
					Meaning: "the token does not bear this many sessions at work",
				})
				break
			}
			p.report.Speed = append(p.report.Speed, Speed{m.name, n, float64(signed) / took.Seconds()})
		}
	}
}

// measure has n sessions sign until the time is over, each at least once.
func (p *run) measure(ctx context.Context, m scheme, n int) (signed int, took time.Duration, err error) {
	err = p.Token.Direct(ctx, direct.Pass{}, "probe: speed", func(library *pkcs11.Ctx, slot uint) (err error) {
		workers := make([]session, 0, n)
		defer func() {
			for _, w := range workers {
				err = errors.Join(err, library.CloseSession(w.handle))
			}
		}()
		for range n {
			handle, err := library.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return fmt.Errorf("opening a session: %w", err)
			}
			workers = append(workers, session{p, library, handle})
		}
		key, err := workers[0].one(pkcs11.CKO_PRIVATE_KEY, m.key)
		if err != nil {
			return err
		}
		counts, failures := make([]int, n), make([]error, n)
		began := p.Now()
		var group sync.WaitGroup
		for i, w := range workers {
			group.Go(func() {
				for counts[i] == 0 || p.Now().Sub(began) < p.Speed && ctx.Err() == nil {
					if _, failures[i] = w.sign(m, key); failures[i] != nil {
						return
					}
					counts[i]++
				}
			})
		}
		group.Wait()
		took = p.Now().Sub(began)
		for _, c := range counts {
			signed += c
		}
		return errors.Join(failures...)
	})
	return signed, took, err
}
