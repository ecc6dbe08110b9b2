package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

// Issuer is a provider of whose tokens and keys a test has the say.
type Issuer struct {
	URL    string
	Client *http.Client // trusts its certificate
	server *httptest.Server
	t      testing.TB

	mu       sync.Mutex
	keys     []jose.JSONWebKey // private ones; the last signs
	down     bool
	document map[string]any // over that of the discovery
	asked    map[string]int
	answer   map[string]any // of the token endpoint
}

// NewIssuer starts an issuer with one key. It ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t, asked: map[string]int{}}
	i.server = httptest.NewTLSServer(http.HandlerFunc(i.serve))
	t.Cleanup(i.server.Close)
	i.URL, i.Client = i.server.URL, i.server.Client()
	i.Rotate()
	return i
}

// Roots is the certificate of its server, PEM.
func (i *Issuer) Roots() []byte { return rootsOf(i.server) }

func rootsOf(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

// Rotate has the issuer sign with another key from now on, and show that key alone.
func (i *Issuer) Rotate() {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, jose.JSONWebKey{Key: key, KeyID: fmt.Sprintf("key-%d", len(i.keys)+1), Algorithm: string(jose.ES256), Use: "sig"})
}

// Down has the issuer answer nothing, or everything again.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Say changes a member of the discovery document.
func (i *Issuer) Say(member string, value any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.document == nil {
		i.document = map[string]any{}
	}
	i.document[member] = value
}

// Answer sets what the token endpoint answers.
func (i *Issuer) Answer(tokens map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.answer = tokens
}

// Asked tells how often a path was asked for.
func (i *Issuer) Asked(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked[path]
}

// Key is the key that signs now; number 1 was the first.
func (i *Issuer) Key(number int) jose.JSONWebKey {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[number-1]
}

// Token signs claims with the key of now.
func (i *Issuer) Token(claims map[string]any, header map[jose.HeaderKey]any) string {
	i.mu.Lock()
	key := i.keys[len(i.keys)-1]
	i.mu.Unlock()
	return Sign(i.t, jose.ES256, key, claims, header)
}

// Sign makes a JSON Web Token of claims by any key and algorithm.
func Sign(t testing.TB, algorithm jose.SignatureAlgorithm, key any, claims any, header map[jose.HeaderKey]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, &jose.SignerOptions{ExtraHeaders: header})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked[r.URL.Path]++
	if i.down {
		http.Error(w, "down for tests", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		document := map[string]any{
			"issuer": i.URL, "jwks_uri": i.URL + "/keys", "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
			"end_session_endpoint": i.URL + "/end", "id_token_signing_alg_values_supported": []string{"ES256"},
		}
		for member, value := range i.document {
			document[member] = value
		}
		_ = json.NewEncoder(w).Encode(document)
	case "/keys":
		public := i.keys[len(i.keys)-1].Public()
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{public, map[string]string{"kty": "unheard-of"}}})
	case "/token":
		if i.answer == nil {
			w.WriteHeader(http.StatusBadRequest)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant"})
			return
		}
		_ = json.NewEncoder(w).Encode(i.answer)
	default:
		http.NotFound(w, r)
	}
}

// PublicOf is the public half of a key.
func PublicOf(key jose.JSONWebKey) crypto.PublicKey { return key.Public().Key }
