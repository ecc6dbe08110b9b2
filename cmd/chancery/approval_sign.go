package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/approval"
)

// signWith say with which key a word is signed. Without them it is not.
type signWith struct {
	key, certificate, signature string
}

func (f *signWith) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "sign", "", "sign with this key of yours: an SSH private key, a public key (*.pub) whose private one the "+
		"SSH agent holds, or with --certificate its key")
	cmd.Flags().StringVar(&f.certificate, "certificate", "", "certificate of the key given with --sign, PEM: sign with CMS")
	cmd.Flags().StringVar(&f.signature, "signature", "",
		"file with a signature made elsewhere, over what chancery approval statement prints")
}

// given tells whether the word is to be signed.
func (f signWith) given() bool { return f.key != "" || f.signature != "" || f.certificate != "" }

// decidedOn is what is about to be decided on, as the service shows it and as the caller has looked at it.
type decidedOn struct {
	kind, id, binding string
	facts             map[string]string // that the statement must hold, each computed here from what was shown
	statement         string            // of an approval
	asks              string            // what the CSR asks for, of a request: shown beside the statement, which has its digest alone
}

// sign makes the signature of a word. The statement comes from the service; that it speaks of what was shown, and of nothing else, is
// checked before it is signed.
func (a *app) sign(f signWith, of decidedOn, approves bool) (string, error) {
	switch {
	case f.certificate != "" && f.key == "":
		return "", misuse{errors.New("--certificate goes with --sign")}
	case f.key != "" && f.signature != "":
		return "", misuse{errors.New("give one of --sign and --signature")}
	case f.signature != "":
		data, err := os.ReadFile(f.signature)
		if err != nil {
			return "", fmt.Errorf("reading the signature: %w", err)
		}
		return string(data), nil
	}
	text, err := of.text(approves)
	if err != nil {
		return "", err
	}
	signer, done, err := a.openSigner(f)
	if err != nil {
		return "", err
	}
	defer done()
	fmt.Fprintf(a.Stderr, "Signing with %s:\n\n%s\n", signer.Key().Fingerprint(), text)
	if of.asks != "" {
		fmt.Fprintf(a.Stderr, "%s\n\n", of.asks)
	}
	signature, err := signer.Sign(text)
	if err != nil {
		return "", err
	}
	return string(signature), nil
}

// text is the statement to be signed.
func (of decidedOn) text(approves bool) ([]byte, error) {
	if of.statement == "" {
		return nil, errors.New("there is nothing to sign: it waits no more, or you are not a person who could approve it")
	}
	s, err := approval.ParseStatement([]byte(of.statement))
	if err != nil {
		return nil, fmt.Errorf("reading the service's statement: %w", err)
	}
	if !s.Approves || !of.isAbout(s) || len(s.Facts) != len(of.facts) {
		return nil, errors.New("the service's statement is not about what it has shown, and that alone: nothing is signed")
	}
	s.Approves = approves
	return s.Text()
}

// isAbout tells whether a statement is about this, and holds each of its facts. None can stand in it twice.
func (of decidedOn) isAbout(s approval.Statement) bool {
	if s.Kind != of.kind || s.ID != of.id || s.Binding != of.binding {
		return false
	}
	for name, value := range of.facts {
		if !slices.Contains(s.Facts, approval.Fact{Name: name, Value: value}) {
			return false
		}
	}
	return true
}

// openSigner opens the key that a word is signed with. done lets go of it.
func (a *app) openSigner(f signWith) (signer approval.Signer, done func(), err error) {
	done = func() {}
	data, unfit, err := readOwn(f.key)
	if err != nil {
		return nil, done, fmt.Errorf("reading the key: %w", err)
	}
	if unfit != nil && strings.Contains(string(data), "PRIVATE KEY") {
		return nil, done, fmt.Errorf("reading the key: %w", unfit)
	}
	if f.certificate != "" {
		certificate, err := os.ReadFile(f.certificate)
		if err != nil {
			return nil, done, fmt.Errorf("reading the certificate: %w", err)
		}
		signer, err = approval.OpenX509(certificate, data)
		return signer, done, err
	}
	if !strings.Contains(string(data), "PRIVATE KEY") {
		return a.openAgent(data)
	}
	signer, err = approval.OpenSSH(data, nil, a.Random)
	if errors.Is(err, approval.ErrPassphrase) {
		passphrase, asked := a.askSecret("Passphrase of " + f.key + ": ")
		if asked != nil {
			return nil, done, fmt.Errorf("%s is encrypted: add it to an agent (ssh-add) and give its public key with --sign, or call this from a "+
				"terminal", f.key)
		}
		defer clear(passphrase)
		signer, err = approval.OpenSSH(data, passphrase, a.Random)
	}
	return signer, done, err
}

func (a *app) openAgent(public []byte) (approval.Signer, func(), error) {
	none := func() {}
	key, err := approval.ParseKey(public)
	if err != nil {
		return nil, none, err
	}
	socket := a.lookup("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, none, errors.New("--sign names a public key, and there is no SSH agent (SSH_AUTH_SOCK): start one, or give the private key")
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, none, fmt.Errorf("reaching the SSH agent: %w", err)
	}
	done := func() { _ = conn.Close() }
	signer, err := approval.OpenAgent(conn, key)
	if err != nil {
		done()
		return nil, none, err
	}
	return signer, done, nil
}
