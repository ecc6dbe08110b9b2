package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/identity"
	"github.com/chancery-ca/chancery/web"
)

func TestIdentitiesAreRefusedWithLines(t *testing.T) {
	const robots = `{name: robots, certificate: {uri: ["spiffe://x/*"]}, namespace: team-a, roles: [requester]}`
	for name, c := range map[string]struct{ text, want string }{
		"two ways": {"clients: {mode: optional, authorities: [issuing-1]}\nidentities: [{name: a, certificate: {cn: [a]}, oidc: " +
			"{sub: [a]}, namespace: team-a, roles: [requester]}]", "c.yaml:3: identities[0]: a rule is about exactly one way"},
		"no way": {
			"identities: [{name: a, namespace: team-a, roles: [requester]}]",
			"c.yaml:2: identities[0]: a rule is about exactly one way",
		},
		"everybody": {"clients: {mode: optional, authorities: [issuing-1]}\nidentities: [{name: a, certificate: {}, namespace: " +
			"team-a, roles: [requester]}]", "would let everybody in"},
		"clients off": {"identities: [" + robots + "]", "identities[0].certificate: client certificates are not looked at"},
		"no socket": {
			`identities: [{name: a, local: {user: [root]}, namespace: "*", roles: [operator]}]`,
			"identities[0].local: nobody can come in locally",
		},
		"approvers who may be anybody": {
			"listen: {local: /run/l}\nidentities:\n  - {name: a, local: {group: [pki]}, namespace: '*', roles: [auditor, approver]}",
			`c.yaml:4: identities[0].roles: "a" gives the role approver to somebody of whom nobody says which person that is (add person: "${user}"`,
		},
		"approvers who may be anybody, in an emergency": {
			"listen: {local: /run/l}\nidentities:\n  - {name: a, local: {user: [root]}, namespace: '*', roles: [approver], emergency: true}",
			"c.yaml:4: identities[0].roles: ",
		},
		"approvers by certificate who may be anybody": {
			"clients: {mode: optional, authorities: [issuing-1]}\nidentities:\n  - {name: a, certificate: {cn: [a]}, namespace: '*', roles: [approver]}",
			`c.yaml:4: identities[0].roles: "a" gives the role approver to somebody of whom nobody says which person that is (add person: "${email}"`,
		},
		"approvers by a login who may be anybody": {
			"identities:\n  - {name: a, oidc: {iss: ['https://login.example'], groups: [pki]}, namespace: '*', roles: [approver]}",
			"c.yaml:3: identities[0].roles: ",
		},
		"policy admins by certificate who may be anybody": {
			"clients: {mode: optional, authorities: [issuing-1]}\nidentities:\n  - {name: a, certificate: {cn: [a]}, namespace: '*', roles: [policy-admin]}",
			`c.yaml:4: identities[0].roles: "a" gives the role policy-admin to somebody`,
		},
		"policy admins by a login who may be anybody": {
			"identities:\n  - {name: a, oidc: {iss: ['https://login.example'], groups: [pki]}, namespace: '*', roles: [policy-admin]}",
			`c.yaml:3: identities[0].roles: "a" gives the role policy-admin to somebody`,
		},
		"revokers by a login who may be anybody": {
			"identities:\n  - {name: a, oidc: {iss: ['https://login.example'], groups: [pki]}, namespace: '*', roles: [auditor, revoker]}",
			`c.yaml:3: identities[0].roles: "a" gives the role revoker to somebody`,
		},
		"a person who is a user": {
			"listen: {local: /run/l}\nidentities:\n  - {name: a, local: {user: [ada]}, namespace: '*', roles: [auditor], person: 'local:ada'}",
			"c.yaml:4: identities[0].person: ",
		},
		"twice": {
			"clients: {mode: optional, authorities: [issuing-1]}\nidentities:\n  - " + robots + "\n  - " + robots,
			"c.yaml:5: identities[1].name",
		},
		"roles kept apart": {"clients: {mode: optional, authorities: [issuing-1]}\nidentities: [{name: a, certificate: {cn: [a]}, " +
			"namespace: team-a, roles: [operator, approver]}]", "must not be in one hand"},
		"a role that is none": {"clients: {mode: optional, authorities: [issuing-1]}\nidentities: [{name: a, certificate: {cn: [a]}, " +
			"namespace: team-a, roles: [emperor]}]", "is not a role"},
		"mode":                  {"clients: {mode: perhaps}", "c.yaml:2: clients.mode"},
		"nobody's certificates": {"clients: {mode: required}", "c.yaml:2: clients: no authority's"},
		"another's authority":   {"clients: {mode: required, authorities: [other]}", "c.yaml:2: clients.authorities[0]"},
		"trust without CRLs":    {"clients: {mode: required, trust: [{name: corp, bundle: b.pem}]}", "c.yaml:2: clients.trust[0].crls"},
		"trust with and without": {
			"clients: {mode: required, trust: [{name: corp, bundle: b.pem, crls: [a.crl], revocation: none}]}",
			"c.yaml:2: clients.trust[0].revocation",
		},
		"trust without a bundle": {"clients: {mode: required, trust: [{name: corp, revocation: none}]}", "c.yaml:2: clients.trust[0].bundle"},
		"trust by a name taken": {"clients: {mode: required, authorities: [issuing-1], trust: [{name: issuing-1, bundle: b.pem, " +
			"revocation: none}]}", "c.yaml:2: clients.trust[0].name"},
		"every proxy":           {"proxies: {networks: [0.0.0.0/0], forwarded_for: true}", "c.yaml:2: proxies.networks[0]"},
		"a proxy's host bits":   {"proxies: {networks: [10.0.0.5/24], forwarded_for: true}", "c.yaml:2: proxies.networks[0]"},
		"headers from anywhere": {"proxies: {certificate_header: Client-Cert}", "c.yaml:2: proxies.networks"},
		"no header": {
			"proxies: {networks: [10.0.0.5/32], certificate_header: 'Client Cert'}",
			"c.yaml:2: proxies.certificate_header",
		},
		"a user who is nobody":    {"orders: {persons: {ada: ''}}", "c.yaml:2: orders.persons"},
		"a user who is a user":    {"orders: {persons: {ada: 'local:ada'}}", "c.yaml:2: orders.persons"},
		"a long socket":           {"listen: {local: /" + strings.Repeat("x", 110) + "}", "c.yaml:2: listen.local"},
		"tokens for ever":         {"limits: {token_life: 20y}", "c.yaml:2: "},
		"tokens for half an hour": {"limits: {token_life: 30m}", "c.yaml:2: limits.token_life"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(soundConfig, "replica: a", "replica: a\n"+c.text, 1)
			if _, err := parseConfig("c.yaml", []byte(strings.TrimPrefix(text, "\n")), nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestIdentitiesAreRead(t *testing.T) {
	text := strings.Replace(soundConfig, "replica: a", `replica: a
listen: {local: run/local.sock}
clients: {mode: optional, authorities: [issuing-1], trust: [{name: corp, bundle: corp.pem, crls: [corp.crl, "http://corp.example/c.crl"]}]}
identities:
  - {name: robots, certificate: {uri: ["spiffe://x/*"], issuer: [issuing-1]}, namespace: "${namespace}", roles: [requester, revoker], person: "${uri}", profiles: [tls-server]}
  - {name: people, oidc: {groups: [pki]}, namespace: "*", roles: [auditor], person: "${email}", groups: groups}
  - {name: glass, local: {user: [root]}, namespace: "*", roles: [operator, approver], person: "${user}", emergency: true}
  - {name: admins, local: {group: [pki]}, namespace: "*", roles: [operator, auditor, revoker]}
  - {name: tools, local: {user: [tool]}, namespace: team-a, roles: [requester]}
  - {name: hosts, certificate: {dns: ["*.team-a.example"]}, namespace: team-a, roles: [requester, revoker]}`, 1)
	c, err := parseConfig("/etc/chancery/c.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	rules := c.rules()
	if len(rules) != 6 || rules[0].Means != access.ByCertificate || rules[1].Means != access.ByOIDC || rules[2].Means != access.ByPeer ||
		!rules[2].Emergency ||
		!slices.Equal(rules[0].Roles, []access.Role{access.Requester, access.Revoker}) || rules[1].Groups != "groups" {
		t.Errorf("%+v", rules)
	}
	listed := strings.Replace(text, `person: "${user}", `, "", 1) + "\norders: {persons: {root: ada}}\n"
	if _, err := parseConfig("c.yaml", []byte(listed), nil); err != nil {
		t.Errorf("approvers who are listed as persons: %v", err)
	}
	if c.Listen.Local != "/etc/chancery/run/local.sock" || c.Clients.Trust[0].Bundle != "/etc/chancery/corp.pem" ||
		!slices.Equal(c.Clients.Trust[0].CRLs, []string{"/etc/chancery/corp.crl", "http://corp.example/c.crl"}) {
		t.Errorf("paths: %+v", c)
	}
}

func TestBundlesAreReadWhole(t *testing.T) {
	s := newHierarchyFiles(t)
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text           string
		roots, between int
		refused        bool
	}{
		"root and issuing": {s.root + s.issuing, 1, 1, false},
		"no root":          {s.issuing, 0, 0, true},
		"no authority":     {s.root + s.leaf, 0, 0, true},
		"rubbish after":    {s.root + "rubbish", 0, 0, true},
		"empty":            {"", 0, 0, true},
		"another block":    {s.root + "-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n", 0, 0, true},
	} {
		path := filepath.Join(dir, "bundle.pem")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		anchor, err := TrustConfig{Name: "corp", Bundle: path}.anchor()
		if (err != nil) != c.refused || err == nil && (len(anchor.Certificates) != c.roots || len(anchor.Intermediates) != c.between) {
			t.Errorf("%s: %+v, %v", name, anchor, err)
		}
	}
	var told []string
	tell := func(trust string, r *identity.RefusedList) { told = append(told, trust+" "+string(r.Reason)) }
	conf := Config{Clients: ClientsConfig{Mode: clientsRequired, Trust: []TrustConfig{{Name: "corp", Bundle: filepath.Join(dir, "none.pem")}}}}
	if _, err := openClients(t.Context(), conf, nil, map[string]*x509.Certificate{}, time.Now, tell); err == nil {
		t.Error("a bundle that is missing was read")
	}
	path := filepath.Join(dir, "bundle.pem")
	if err := os.WriteFile(path, []byte(s.root), 0o600); err != nil {
		t.Fatal(err)
	}
	conf.Clients.Trust[0] = TrustConfig{Name: "corp", Bundle: path, CRLs: []string{filepath.Join(dir, "none.crl")}}
	if _, err := openClients(t.Context(), conf, nil, nil, time.Now, tell); err == nil || !strings.Contains(err.Error(), "none.crl") {
		t.Errorf("a list that is missing: %v", err)
	}
	conf.Clients.Trust[0].CRLs = []string{filepath.Join(dir, "forged.crl")}
	if err := os.WriteFile(conf.Clients.Trust[0].CRLs[0], forgedList(t, "root"), 0o600); err != nil {
		t.Fatal(err)
	}
	clients, err := openClients(t.Context(), conf, nil, nil, time.Now, tell)
	if err != nil || !slices.Equal(told, []string{"corp unreadable", "corp unverified"}) {
		t.Fatalf("a list that was put in keeps the service from starting, or is not told: %v, %q", err, told)
	}
	running := &service{clients: clients, metrics: web.NewMetrics(func(string) bool { return false })}
	if err := running.refreshCRLs(t.Context()); err == nil || !strings.Contains(err.Error(), "verifies its signature") {
		t.Errorf("a list that was put in, later: %v", err)
	}
	if err := (&service{}).refreshCRLs(t.Context()); err != nil {
		t.Errorf("without client certificates: %v", err)
	}
	conf.Clients.Trust[0].CRLs, conf.Clients.Trust[0].Revocation = nil, revocationNone
	clients, err = openClients(t.Context(), conf, nil, nil, time.Now, tell)
	if err != nil || len(clients.Anchors) != 1 || clients.Anchors[0].Lists != nil {
		t.Errorf("%+v, %v", clients, err)
	}
}

// forgedList is a CRL under an authority's name by another key.
func forgedList(t *testing.T, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1 << 40), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}, &x509.Certificate{Subject: pkix.Name{CommonName: name}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// hierarchyFiles are certificates in PEM.
type hierarchyFiles struct{ root, issuing, leaf string }

func newHierarchyFiles(t *testing.T) hierarchyFiles {
	t.Helper()
	root, issuing, leaf := newChain(t)
	inPEM := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return hierarchyFiles{inPEM(root), inPEM(issuing), inPEM(leaf)}
}

// newChain makes a root, an authority under it, and a leaf.
func newChain(t *testing.T) (root, issuing, leaf []byte) {
	t.Helper()
	keys := map[string]*ecdsa.PrivateKey{}
	certify := func(name string, authority bool, parent []byte) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = key
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour),
			IsCA:     authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte(name),
		}
		by, signer := template, key
		if parent != nil {
			if by, err = x509.ParseCertificate(parent); err != nil {
				t.Fatal(err)
			}
			signer = keys[by.Subject.CommonName]
		}
		der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	root = certify("root", true, nil)
	issuing = certify("issuing", true, root)
	return root, issuing, certify("leaf", false, issuing)
}

// TestListsComeFromWhereTheyAreSaidToBe: whoever answers in a list's place cannot have the service ask others.
func TestListsComeFromWhereTheyAreSaidToBe(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 1)
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Path }))
	defer inside.Close()
	source := httptest.NewServer(http.RedirectHandler(inside.URL+"/secrets", http.StatusFound))
	defer source.Close()
	for at, want := range map[string]string{source.URL + "/a.crl": "302 Found", "http://169.254.169.254/a.crl": "nothing is delivered to"} {
		refused := identity.NewLists([]string{at}, nil, listClient()).Refresh(t.Context())
		if len(refused) != 1 || refused[0].Reason != identity.Unreadable || !strings.Contains(refused[0].Error(), want) {
			t.Errorf("%s: %v", at, refused)
		}
	}
	if len(asked) > 0 {
		t.Errorf("a host inside was asked for %s", <-asked)
	}
}
