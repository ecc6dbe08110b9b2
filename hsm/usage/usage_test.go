package usage_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/hsm/usage"
)

const sound = `roles:
  release: [alice, service]
others: permit
keys:
  - key: {label: code}
    operations: [sign, verify]
    mechanisms: [CKM_ECDSA]
    roles: [release]
    hours: {days: [mon, tue, wed, thu, fri], from: "08:00", to: "18:00", zone: Europe/Amsterdam}
    until: 2027-06-30
    uses: 3
    destroyable: false
  - key: {id: "0a0b"}
    operations: [encrypt, decrypt, destroy]
`

// private is a directory that is the tests' alone, whatever the umask.
func private(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t *testing.T, text string) *usage.Policy {
	t.Helper()
	path := filepath.Join(private(t), "usage.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := usage.Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPermit(t *testing.T) {
	t.Parallel()
	wednesday := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC) // 11:00 in Amsterdam
	sign := hsm.Operation{Op: hsm.OpSign, Actor: "local:alice", Token: "1", Key: hsm.KeyRef{Label: "code", ID: []byte{1}}, Mechanism: "CKM_ECDSA", Began: wednesday}
	for name, c := range map[string]struct {
		change func(*hsm.Operation)
		says   string // empty: permitted
	}{
		"as it should be":      {func(*hsm.Operation) {}, ""},
		"the service":          {func(o *hsm.Operation) { o.Actor = "service" }, ""},
		"another operation":    {func(o *hsm.Operation) { o.Op = hsm.OpDecrypt }, "the key is for sign, verify"},
		"destroying":           {func(o *hsm.Operation) { o.Op = hsm.OpDestroy }, "the key is for"},
		"another mechanism":    {func(o *hsm.Operation) { o.Mechanism = "CKM_RSA_PKCS" }, "not among CKM_ECDSA"},
		"another user":         {func(o *hsm.Operation) { o.Actor = "local:mallory" }, "none of the roles release"},
		"nobody":               {func(o *hsm.Operation) { o.Actor = "" }, "none of the roles"},
		"early":                {func(o *hsm.Operation) { o.Began = time.Date(2026, 11, 25, 6, 59, 0, 0, time.UTC) }, "outside the hours"},
		"just in time":         {func(o *hsm.Operation) { o.Began = time.Date(2026, 11, 25, 7, 0, 0, 0, time.UTC) }, ""},
		"the evening":          {func(o *hsm.Operation) { o.Began = time.Date(2026, 11, 25, 17, 0, 0, 0, time.UTC) }, "outside the hours"},
		"summer time":          {func(o *hsm.Operation) { o.Began = time.Date(2026, 7, 1, 6, 30, 0, 0, time.UTC) }, ""},
		"Sunday":               {func(o *hsm.Operation) { o.Began = time.Date(2026, 11, 29, 10, 0, 0, 0, time.UTC) }, "outside the hours"},
		"the last day":         {func(o *hsm.Operation) { o.Began = time.Date(2027, 6, 30, 15, 0, 0, 0, time.UTC) }, ""},
		"the day after":        {func(o *hsm.Operation) { o.Began = time.Date(2027, 7, 1, 10, 0, 0, 0, time.UTC) }, "until 2027-06-30"},
		"verifying afterwards": {func(o *hsm.Operation) { o.Op, o.Began = hsm.OpVerify, time.Date(2029, 7, 1, 10, 0, 0, 0, time.UTC) }, ""},
		"a key not named":      {func(o *hsm.Operation) { o.Key.Label = "other"; o.Op = hsm.OpExport }, ""},
		"a key by its id":      {func(o *hsm.Operation) { o.Key = hsm.KeyRef{Label: "x", ID: []byte{10, 11}} }, "the key is for encrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			p, o := load(t, sound), sign
			c.change(&o)
			err := p.Permit(t.Context(), o)
			if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, hsm.ErrNotPermitted) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
	if p := load(t, strings.Replace(sound, "others: permit", "others: refuse", 1)); p.Permit(t.Context(), hsm.Operation{Op: hsm.OpSign, Key: hsm.KeyRef{Label: "other"}}) == nil {
		t.Error("a key that is not named was permitted")
	}
}

// A key's uses are its own: another label does not begin them anew, and two rules that speak of it do not count one twice.
func TestUsesBelongToTheKey(t *testing.T) {
	t.Parallel()
	path := filepath.Join(private(t), "usage.yaml")
	text := `others: permit
keys:
  - {key: {id: "0a"}, operations: [sign, label], uses: 6}
  - {key: {label: k}, operations: [sign, label], uses: 4}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := usage.Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	signs := func(label string, id byte) (n int) {
		for range 10 {
			if p.Permit(t.Context(), hsm.Operation{Op: hsm.OpSign, Token: "1", Key: hsm.KeyRef{Label: label, ID: []byte{id}}}) == nil {
				n++
			}
		}
		return n
	}
	for _, c := range []struct {
		label string
		id    byte
		want  int
	}{
		{"k", 0x0a, 4}, // of which the second rule permits no more
		{"renamed", 0x0a, 2},
		{"renamed again", 0x0a, 0},
		{"k", 0x0b, 4}, // another key
	} {
		if n := signs(c.label, c.id); n != c.want {
			t.Errorf("key %q, id %x: %d uses were permitted, %d are", c.label, c.id, n, c.want)
		}
	}
}

// Uses are counted across policies that share the file, and never beyond the bound, whoever is first.
func TestUsesAreCounted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(private(t), "usage.yaml")
	if err := os.WriteFile(path, []byte("others: permit\nkeys:\n  - {key: {label: k}, operations: [sign, verify], uses: 7}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var permitted atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		p, err := usage.Load(path, "")
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			all.Go(func() {
				o := hsm.Operation{Op: hsm.OpSign, Token: "1", Key: hsm.KeyRef{Label: "k"}}
				if err := p.Permit(t.Context(), o); err == nil {
					permitted.Add(1)
				} else if !strings.Contains(err.Error(), "as many times as it may") {
					t.Error(err)
				}
				o.Op = hsm.OpVerify
				if err := p.Permit(t.Context(), o); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if n := permitted.Load(); n != 7 {
		t.Errorf("%d uses were permitted, 7 are", n)
	}
	p, err := usage.Load(path, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"{", "null\n", ""} {
		if err := os.WriteFile(path+".uses.json", []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.Permit(t.Context(), hsm.Operation{Op: hsm.OpSign, Key: hsm.KeyRef{Label: "k"}}); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("a damaged count, %q: %v", damaged, err)
		}
	}
}

func TestPoliciesAreRefusedWithLines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field":     {"uses: 3", "use: 3", "u.yaml:11: use: unknown field"},
		"no others":         {"others: permit", "others: maybe", "u.yaml:3: others"},
		"unknown operation": {"[sign, verify]", "[sing]", "u.yaml:6: keys[0].operations[0]"},
		"unknown mechanism": {"CKM_ECDSA", "CKM_ECDA", "u.yaml:7: keys[0].mechanisms[0]"},
		"unknown role":      {"roles: [release]", "roles: [relase]", "u.yaml:8: keys[0].roles[0]"},
		"bad day":           {"mon,", "monday,", "u.yaml:9: keys[0].hours.days[0]"},
		"no zone":           {"Europe/Amsterdam", "Mars/Base", "u.yaml:9: keys[0].hours.zone"},
		"hours backwards":   {`"18:00"`, `"07:00"`, "u.yaml:9: keys[0].hours"},
		"bad date":          {"2027-06-30", "soon", "u.yaml:10: keys[0].until"},
		"bad id":            {`"0a0b"`, `"xyz"`, "keys[1].key.id"},
		"twice":             {`{id: "0a0b"}`, "{label: code}", "keys[1].key"},
		"no key":            {`{id: "0a0b"}`, "{}", "keys[1].key"},
		"negative":          {"uses: 3", "uses: -3", "u.yaml:11: keys[0].uses"},
		"no use":            {"uses: 3", "uses: 0", "u.yaml:11: keys[0].uses"},
		"no mechanism":      {"[CKM_ECDSA]", "[]", "u.yaml:7: keys[0].mechanisms"},
		"no role":           {"roles: [release]", "roles: []", "u.yaml:8: keys[0].roles"},
		"no day":            {"[mon, tue, wed, thu, fri]", "[]", "u.yaml:9: keys[0].hours.days"},
		"no date":           {"2027-06-30", `""`, "u.yaml:10: keys[0].until"},
		"no label":          {"{label: code}", `{label: "", id: "01"}`, "u.yaml:5: keys[0].key.label"},
		"no id":             {"{label: code}", `{label: code, id: ""}`, "u.yaml:5: keys[0].key.id"},
	} {
		text := strings.Replace(sound, c.old, c.new, 1)
		if _, err := usage.Parse("u.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// The token enforces by itself what it can: a key made by the policy refuses what the policy does not permit, whoever asks.
func TestTokenMirrorsThePolicy(t *testing.T) {
	t.Parallel()
	p, err := usage.Parse("u.yaml", []byte(`others: refuse
keys:
  - {key: {label: pss}, operations: [sign, verify], mechanisms: [CKM_RSA_PKCS_PSS], destroyable: false}
  - {key: {label: travels}, operations: [sign, export], modifiable: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	fixture := hsmtest.New(t)
	c := fixture.Config()
	c.Usage = p
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for label, want := range map[string]map[string]string{
		"pss": {
			"CKA_SIGN": "true", "CKA_DECRYPT": "false", "CKA_UNWRAP": "false", "CKA_ALLOWED_MECHANISMS": "CKM_RSA_PKCS_PSS",
			"CKA_DESTROYABLE": "false", "CKA_MODIFIABLE": "false", "CKA_COPYABLE": "false", "CKA_EXTRACTABLE": "false",
		},
		"travels": {"CKA_SIGN": "true", "CKA_EXTRACTABLE": "true", "CKA_MODIFIABLE": "true", "CKA_DESTROYABLE": "true"},
	} {
		spec, err := p.Spec(hsm.KeySpec{Algorithm: hsm.RSA2048, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		ref, _, err := token.GenerateKey(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := token.Objects(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range want {
			for _, o := range objects {
				if o.Class == "CKO_PRIVATE_KEY" && o.Get(name) != value {
					t.Errorf("%s: %s is %q, want %q", label, name, o.Get(name), value)
				}
			}
		}
	}
	if _, err := p.Spec(hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "pss", Usages: []hsm.Usage{hsm.UseEncrypt}}); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("more than the policy: %v", err)
	}
	if _, err := p.Spec(hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "unnamed"}); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("a key not named: %v", err)
	}
	// Chancery refuses by the policy; and what passes it, the token refuses.
	pss := hsm.KeyRef{Label: "pss"}
	if _, err := token.Sign(t.Context(), pss, hsm.SignOptions{Scheme: hsm.RSAPKCS1}, strings.NewReader("m")); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("another mechanism: %v", err)
	}
	if err := token.Destroy(t.Context(), pss); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("destroying: %v", err)
	}
	if _, err := token.Sign(t.Context(), pss, hsm.SignOptions{}, strings.NewReader("m")); err != nil {
		t.Error(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	token = fixture.Open(t)
	if _, err := token.Sign(t.Context(), pss, hsm.SignOptions{Scheme: hsm.RSAPKCS1}, strings.NewReader("m")); err == nil || errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("without the policy the token itself: %v", err)
	}
	if err := token.Destroy(t.Context(), pss); err == nil || !strings.Contains(err.Error(), "CKA_DESTROYABLE") {
		t.Errorf("destroying what is indestructible: %v", err)
	}
	if keys, err := token.Objects(t.Context(), pss); err != nil || len(keys) != 2 {
		t.Errorf("both halves should be there: %v, %v", keys, err)
	}
}

// What the token is told to permit is what all the rules of the key permit, and no more than was asked for.
func TestAKeyIsNoWiderThanItsRules(t *testing.T) {
	t.Parallel()
	p, err := usage.Parse("u.yaml", []byte(`others: permit
keys:
  - {key: {label: k}, operations: [sign, verify, export, decrypt], mechanisms: [CKM_RSA_PKCS_PSS, CKM_RSA_PKCS], modifiable: true, copyable: true}
  - {key: {id: "0a"}, operations: [sign, decrypt], mechanisms: [CKM_RSA_PKCS_PSS, CKM_RSA_PKCS_OAEP], destroyable: false}
  - {key: {id: "0b"}, operations: [sign], mechanisms: [CKM_RSA_PKCS_OAEP]}
  - {key: {id: "0c"}, operations: [encrypt]}
  - {key: {label: leaves}, operations: [export, destroy]}
`))
	if err != nil {
		t.Fatal(err)
	}
	spec := func(label string, id byte, change func(*hsm.KeySpec)) (hsm.KeySpec, error) {
		s := hsm.KeySpec{Algorithm: hsm.RSA2048, Label: label}
		if id != 0 {
			s.ID = []byte{id}
		}
		if change != nil {
			change(&s)
		}
		return p.Spec(s)
	}
	alone, err := spec("k", 0, func(s *hsm.KeySpec) { s.Indestructible, s.Mechanisms = true, []string{"CKM_RSA_PKCS"} })
	if err != nil || !alone.Indestructible || !alone.Extractable || !alone.Modifiable || !slices.Equal(alone.Mechanisms, []string{"CKM_RSA_PKCS"}) {
		t.Errorf("one rule: %+v, %v", alone, err)
	}
	two, err := spec("k", 0x0a, nil)
	if err != nil || two.Extractable || two.Modifiable || two.Copyable || !two.Indestructible ||
		!slices.Equal(two.Mechanisms, []string{"CKM_RSA_PKCS_PSS"}) || !slices.Equal(two.Usages, []hsm.Usage{hsm.UseSign, hsm.UseEncrypt}) {
		t.Errorf("two rules: %+v, %v", two, err)
	}
	for name, c := range map[string]struct {
		label  string
		id     byte
		change func(*hsm.KeySpec)
		says   string
	}{
		"another mechanism":              {"k", 0, func(s *hsm.KeySpec) { s.Mechanisms = []string{"CKM_RSA_X_509"} }, "not for the mechanism CKM_RSA_X_509"},
		"a mechanism of one rule":        {"k", 0x0a, func(s *hsm.KeySpec) { s.Mechanisms = []string{"CKM_RSA_PKCS"} }, "not for the mechanism CKM_RSA_PKCS"},
		"modifiable by one rule":         {"k", 0x0a, func(s *hsm.KeySpec) { s.Modifiable = true }, "not to be modifiable"},
		"copyable by one rule":           {"k", 0x0a, func(s *hsm.KeySpec) { s.Copyable = true }, "not to be copyable"},
		"export by one rule":             {"k", 0x0a, func(s *hsm.KeySpec) { s.Extractable = true }, "not for export"},
		"no mechanism that both permit":  {"k", 0x0b, nil, "no mechanism that all its rules permit"},
		"no operation that both permit":  {"k", 0x0c, nil, "for nothing that a key is made for"},
		"operations that make no usage":  {"leaves", 0, nil, "for nothing that a key is made for"},
		"what was asked for by the flag": {"leaves", 0, func(s *hsm.KeySpec) { s.Usages = []hsm.Usage{hsm.UseEncrypt} }, "for nothing that a key is made for"},
	} {
		if s, err := spec(c.label, c.id, c.change); !errors.Is(err, hsm.ErrNotPermitted) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// Another label does not take a key out of the rules that hold for it: whoever may rename it could do with it whatever they forbid.
func TestARenamedKeyKeepsItsRules(t *testing.T) {
	t.Parallel()
	p := load(t, `others: permit
keys:
  - {key: {label: bounded}, operations: [sign, label], modifiable: true, uses: 1}
  - {key: {id: "0a"}, operations: [sign, label], modifiable: true, uses: 1}
`)
	c := hsmtest.New(t).Config()
	c.Usage = p
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	sign := func(label string) error {
		_, err := token.Sign(t.Context(), hsm.KeyRef{Label: label}, hsm.SignOptions{}, strings.NewReader("m"))
		return err
	}
	for _, spec := range []hsm.KeySpec{
		{Algorithm: hsm.ECDSAP256, Label: "bounded", Modifiable: true},
		{Algorithm: hsm.ECDSAP256, Label: "other", ID: []byte{10}, Modifiable: true},
	} {
		if _, _, err := token.GenerateKey(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := sign(spec.Label); err != nil {
			t.Fatal(err)
		}
	}
	err = token.SetLabel(t.Context(), hsm.KeyRef{Label: "bounded"}, "free")
	if !errors.Is(err, hsm.ErrNotPermitted) || !strings.Contains(err.Error(), "by its id") {
		t.Errorf("a key was renamed out of its rule: %v", err)
	}
	if err := sign("free"); err == nil {
		t.Error("the key is used as often as one likes")
	}
	if err := token.SetLabel(t.Context(), hsm.KeyRef{Label: "other"}, "another"); err != nil {
		t.Errorf("a key that is named by its id: %v", err)
	}
	if err := sign("another"); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("renamed, its uses begin anew: %v", err)
	}
}

// A key that attests itself is used once, to attest: what it signs with then is no use of its own, and no other mechanism than it may have.
func TestAttestingIsOneUse(t *testing.T) {
	t.Parallel()
	p := load(t, `others: refuse
keys:
  - {key: {label: witness}, operations: [attest], mechanisms: [CKM_ECDSA], uses: 2}
  - {key: {label: other}, operations: [attest], mechanisms: [CKM_RSA_PKCS]}
  - {key: {label: signer}, operations: [sign]}
`)
	c := hsmtest.New(t).Config()
	c.Usage = p
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for _, label := range []string{"witness", "other", "signer"} {
		if _, _, err := token.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: label}); err != nil {
			t.Fatal(err)
		}
	}
	attest := func(label, by, refusal string) {
		t.Helper()
		_, err := token.Attest(t.Context(), hsm.KeyRef{Label: label}, hsm.KeyRef{Label: by}, hsm.Declaration{})
		if (err == nil) != (refusal == "") || err != nil && !strings.Contains(err.Error(), refusal) {
			t.Errorf("%s by %q: %v, want %q", label, by, err, refusal)
		}
	}
	attest("witness", "", "")
	attest("witness", "witness", "")
	attest("witness", "", "as many times as it may")
	attest("other", "", "the mechanism CKM_ECDSA is not among CKM_RSA_PKCS")
	attest("other", "signer", "")
	attest("other", "witness", "the key is for attest")
	attest("signer", "", "the key is for sign")
	if _, err := token.Sign(t.Context(), hsm.KeyRef{Label: "other"}, hsm.SignOptions{}, strings.NewReader("m")); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("signing with a key that may attest: %v", err)
	}
}

// A key that may leave is wrapped for another token's public key, which no rule can name. Under a key of this token a rule for that
// is needed.
func TestWrappingForARecipientNeedsNoRuleForIt(t *testing.T) {
	t.Parallel()
	p := load(t, `others: refuse
keys:
  - {key: {label: travels}, operations: [sign, export]}
  - {key: {label: stays}, operations: [sign]}
`)
	fixture := hsmtest.New(t)
	c := fixture.Config()
	c.Usage = p
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for _, spec := range []hsm.KeySpec{
		{Algorithm: hsm.ECDSAP256, Label: "travels", Extractable: true},
		{Algorithm: hsm.ECDSAP256, Label: "stays", Extractable: true},
		{Algorithm: hsm.AES256, Label: "unnamed", Usages: []hsm.Usage{hsm.UseWrap}},
	} {
		if _, _, err := token.GenerateKey(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
	}
	recipient, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(label string, spec hsm.WrapSpec) error {
		spec.Key, spec.Hash = hsm.KeyRef{Label: label}, crypto.SHA1
		_, err := token.Wrap(t.Context(), spec)
		return err
	}
	if err := wrap("travels", hsm.WrapSpec{Recipient: &recipient.PublicKey}); err != nil {
		t.Error(err)
	}
	if err := wrap("stays", hsm.WrapSpec{Recipient: &recipient.PublicKey}); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("a key that is not for export: %v", err)
	}
	if err := wrap("travels", hsm.WrapSpec{Under: hsm.KeyRef{Label: "unnamed"}}); !errors.Is(err, hsm.ErrNotPermitted) {
		t.Errorf("under a key that is not named: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sound))
	f.Add([]byte("others: permit\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := usage.Parse("u.yaml", data)
		if err != nil {
			return
		}
		_ = p.Permit(t.Context(), hsm.Operation{Op: hsm.OpSign, Key: hsm.KeyRef{Label: "code"}, Began: time.Now()})
	})
}

// The policy that docs/hsm.md shows is one.
func TestDocumentedPolicyIsSound(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/hsm.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "```yaml\nroles:")
	policy, _, found := strings.Cut(after, "```")
	if _, err := usage.Parse("hsm.md", []byte("roles:"+policy)); err != nil || !found {
		t.Error(err)
	}
}

// An indestructible key is unwrapped twice, which is one use of the wrapping key.
func TestUnwrappingAnIndestructibleKeyIsOneUse(t *testing.T) {
	t.Parallel()
	c := hsmtest.New(t).Config()
	c.Usage = load(t, "others: permit\nkeys:\n  - {key: {label: kek}, operations: [wrap, unwrap], uses: 3}\n")
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	kek, _, err := token.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}})
	if err != nil {
		t.Fatal(err)
	}
	key, public, err := token.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", Extractable: true})
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := token.Wrap(t.Context(), hsm.WrapSpec{Key: key, Under: kek})
	if err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"second use", "third use", "fourth use"} {
		spec := hsm.UnwrapSpec{Under: kek, Key: hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: label, Indestructible: true}, Public: public}
		if _, err := token.Unwrap(t.Context(), spec, wrapped); (err == nil) != (label != "fourth use") || err != nil && !errors.Is(err, hsm.ErrNotPermitted) {
			t.Errorf("%s: %v", label, err)
		}
	}
}
