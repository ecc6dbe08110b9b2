package ceremony

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/issuance"
)

// sample makes the transcript of a whole ceremony.
func sample(t *testing.T) []byte {
	t.Helper()
	result := run(t, hsmtest.New(t).Open(t), plan(t, t.TempDir(), hierarchyPlan))
	text, err := os.ReadFile(result.Transcript)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func join(lines [][]byte) io.Reader { return bytes.NewReader(bytes.Join(lines, nil)) }

func TestWhatIsWrongWithATranscriptIsFound(t *testing.T) {
	t.Parallel()
	text := sample(t)
	t.Run("tampering", func(t *testing.T) { testTampering(t, text) })
	t.Run("forgery", func(t *testing.T) { testForgeries(t, text) })
}

// A signature that SHA-1 carries could be another's: the recorded key then proves nothing.
func TestSignaturesWithSHA1AreRefused(t *testing.T) {
	t.Parallel()
	tbs := []byte("to be signed")
	for old, c := range map[x509.SignatureAlgorithm]struct {
		key hsm.Algorithm
		now x509.SignatureAlgorithm
	}{
		x509.ECDSAWithSHA1: {hsm.ECDSAP256, x509.ECDSAWithSHA256},
		x509.SHA1WithRSA:   {hsm.RSA2048, x509.SHA256WithRSA},
	} {
		key, err := throwAway(c.key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		check := func(algorithm x509.SignatureAlgorithm, hash crypto.Hash) error {
			digest := hash.New()
			digest.Write(tbs)
			signature, err := key.Sign(rand.Reader, digest.Sum(nil), hash)
			if err != nil {
				t.Fatal(err)
			}
			return checkSignature(key.Public(), algorithm, tbs, signature)
		}
		var insecure x509.InsecureAlgorithmError
		if err := check(old, crypto.SHA1); !errors.As(err, &insecure) {
			t.Errorf("%v: %v", old, err)
		}
		if err := check(c.now, crypto.SHA256); err != nil {
			t.Errorf("%v: %v", c.now, err)
		}
	}
}

// testTampering changes, drops, doubles, swaps and cuts lines, as whoever does not know the chain.
func testTampering(t *testing.T, text []byte) {
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:len(lines)-1]
	if s, err := VerifyTranscript(join(lines)); err != nil || !s.Complete {
		t.Fatalf("the transcript itself: %v", err)
	}
	for i, line := range lines {
		for at := range line {
			changed := slices.Clone(line)
			changed[at] ^= 1
			if _, _, err := decode(changed); err == nil {
				t.Errorf("line %d, octet %d: changed and read", i+1, at)
			}
		}
		changed := slices.Clone(lines)
		changed[i] = slices.Clone(line)
		changed[i][len(line)/2] ^= 1
		if _, err := VerifyTranscript(join(changed)); err == nil {
			t.Errorf("line %d: changed and accepted", i+1)
		}
		if _, err := VerifyTranscript(join(slices.Delete(slices.Clone(lines), i, i+1))); err == nil {
			t.Errorf("line %d: dropped and accepted", i+1)
		}
		if _, err := VerifyTranscript(join(slices.Insert(slices.Clone(lines), i, line))); err == nil {
			t.Errorf("line %d: doubled and accepted", i+1)
		}
		if i > 0 {
			swapped := slices.Clone(lines)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			if _, err := VerifyTranscript(join(swapped)); err == nil {
				t.Errorf("lines %d and %d: swapped and accepted", i, i+1)
			}
		}
		// Cut off, as by a crash: sound as far as it goes, and not complete.
		if s, err := VerifyTranscript(join(lines[:i])); s.Complete || err == nil || i > 0 && !errors.Is(err, ErrIncomplete) {
			t.Errorf("cut before line %d: %v", i+1, err)
		}
		if _, err := VerifyTranscript(io.MultiReader(join(lines[:i]), bytes.NewReader(line[:len(line)-1]))); err == nil || errors.Is(err, ErrIncomplete) {
			t.Errorf("cut within line %d: %v", i+1, err)
		}
	}
	if _, err := VerifyTranscript(io.MultiReader(join(lines), strings.NewReader("\n"))); err == nil {
		t.Error("an empty line at the end was accepted")
	}
}

// entries reads a transcript's lines, to be changed and chained anew: what only a forger with a pen does.
func entries(t *testing.T, text []byte) []entry {
	t.Helper()
	var all []entry
	for line := range bytes.Lines(text) {
		e, _, err := decode(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// forge chains entries anew.
func forge(t *testing.T, all []entry) []byte {
	t.Helper()
	var text []byte
	previous := genesis
	for i, e := range all {
		e.Number, e.Previous = i+1, previous
		line, hash, err := e.encode()
		if err != nil {
			t.Fatal(err)
		}
		text, previous = append(text, line...), hash
	}
	return text
}

// testForgeries changes what the transcript says and makes the chain right again: the contents must still fit together.
func testForgeries(t *testing.T, text []byte) {
	if !bytes.Equal(forge(t, entries(t, text)), text) {
		t.Fatal("the forger's tools do not even copy")
	}
	find := func(all []entry, is func(entry) bool) int {
		i := slices.IndexFunc(all, is)
		if i < 0 {
			t.Fatal("no such line")
		}
		return i
	}
	intents := func(e entry) bool { return e.Intent != nil }
	signatures := func(e entry) bool { return e.Signed != nil }
	artefacts := func(e entry) bool { return e.Artefact != nil }
	drop := func(all []entry, i int) []entry { return slices.Delete(all, i, i+1) }
	for name, c := range map[string]struct {
		change func([]entry) []entry
		want   string
	}{
		"signature without intent": {func(all []entry) []entry { return drop(all, find(all, intents)) }, "without an intent"},
		"intent answered twice":    {func(all []entry) []entry { i := find(all, signatures); return slices.Insert(all, i, all[i]) }, "without an intent"},
		"intent never answered":    {func(all []entry) []entry { return drop(all, find(all, signatures)) }, "unanswered"},
		"other bytes intended": {func(all []entry) []entry {
			i := find(all, intents)
			other := *all[i].Intent
			other.TBS = slices.Clone(other.TBS)
			other.TBS[len(other.TBS)-1] ^= 1 // whatever the last octet is, it is another now
			all[i].Intent = &other
			return all
		}, "not what was intended"},
		"other serial intended": {func(all []entry) []entry {
			i := find(all, intents)
			other := *all[i].Intent
			other.Serial = strings.Repeat("0", 40)
			all[i].Intent = &other
			return all
		}, "not what was intended"},
		"another signer": {func(all []entry) []entry {
			i := find(all, func(e entry) bool { return e.Intent != nil && e.Intent.Subject == "issuing-1" })
			other := *all[i].Intent
			other.Issuer = "issuing-1"
			all[i].Intent = &other
			return all
		}, "not the recorded key's"},
		"another subject": {func(all []entry) []entry {
			i := find(all, func(e entry) bool { return e.Intent != nil && e.Intent.Subject == "issuing-1" })
			other := *all[i].Intent
			other.Subject = "root-1"
			all[i].Intent = &other
			return all
		}, "has another key"},
		"key hidden": {func(all []entry) []entry {
			return drop(all, find(all, func(e entry) bool { return e.Key != nil && e.Key.Authority == "root-1" }))
		}, "without a key"},
		"key twice": {func(all []entry) []entry {
			i := find(all, func(e entry) bool { return e.Key != nil })
			return slices.Insert(all, i, all[i])
		}, "second key"},
		"another plan": {func(all []entry) []entry {
			other := *all[0].Begin
			other.Plan = []byte("ceremony: other\n")
			all[0].Begin = &other
			return all
		}, "plan"},
		"another file": {func(all []entry) []entry {
			i := find(all, artefacts)
			all[i].Artefact = &fileLine{Name: all[i].Artefact.Name, SHA256: strings.Repeat("0", 64)}
			return all
		}, "not signed before"},
		"file of nobody": {func(all []entry) []entry {
			i := find(all, artefacts)
			all[i].Artefact = &fileLine{Name: "other.cer", SHA256: all[i].Artefact.SHA256}
			return all
		}, "not signed before"},
		"file of no kind": {func(all []entry) []entry {
			i := find(all, artefacts)
			all[i].Artefact = &fileLine{Name: "root-1.exe", SHA256: all[i].Artefact.SHA256}
			return all
		}, "of no kind"},
		"file twice":  {func(all []entry) []entry { i := find(all, artefacts); return slices.Insert(all, i, all[i]) }, "twice"},
		"file hidden": {func(all []entry) []entry { return drop(all, find(all, artefacts)) }, "counts other"},
		"after the end": {func(all []entry) []entry {
			return append(all, entry{Version: transcriptVersion, Time: all[0].Time, Failed: &failure{Reason: "afterthought"}})
		}, "after the end"},
		"token twice": {func(all []entry) []entry { return slices.Insert(all, 1, all[1]) }, "second token"},
		"begun twice": {func(all []entry) []entry { return slices.Insert(all, 1, all[0]) }, "one beginning"},
		"says nothing": {func(all []entry) []entry {
			return slices.Insert(all, 1, entry{Version: transcriptVersion, Time: all[0].Time})
		}, "exactly one thing"},
		"a version to come": {func(all []entry) []entry { all[0].Version = 2; return all }, "version 2"},
		"no time":           {func(all []entry) []entry { all[1].Time = "now"; return all }, "not a time"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := VerifyTranscript(bytes.NewReader(forge(t, c.change(entries(t, text)))))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLinesAreReadAsTheyAreWritten(t *testing.T) {
	e := entry{Version: 1, Number: 1, Time: "2026-11-24T10:30:15.000000Z", Previous: genesis, Failed: &failure{Reason: "x"}}
	line, _, err := e.encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"field twice":   `{"v":1,"v":1,` + string(line[len(lineStart)+64+len(lineMiddle)+7:len(line)-2]),
		"other letters": strings.Replace(string(line[len(lineStart)+64+len(lineMiddle):len(line)-2]), `"n"`, `"N"`, 1),
		"unknown field": strings.Replace(string(line[len(lineStart)+64+len(lineMiddle):len(line)-2]), `"n"`, `"x":1,"n"`, 1),
		"spaces":        strings.Replace(string(line[len(lineStart)+64+len(lineMiddle):len(line)-2]), `"n"`, ` "n"`, 1),
	} {
		forged := lineStart + hexDigest([]byte(raw)) + lineMiddle + raw + lineEnd
		if _, _, err := decode([]byte(forged)); err == nil || !strings.Contains(err.Error(), "the form in which") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// failing is a disk that fails at one of its writes: before it, in the middle of it, or only when it is to be made durable.
type failing struct {
	kept   bytes.Buffer // survives
	cache  bytes.Buffer
	writes int
	fail   int    // at which write, from 1
	how    string // "full", "torn", "sync"
}

var errDisk = errors.New("the disk failed")

func (f *failing) Write(p []byte) (int, error) {
	f.writes++
	if f.writes != f.fail {
		return f.cache.Write(p)
	}
	switch f.how {
	case "full":
		return 0, errDisk
	case "torn":
		n, _ := f.kept.Write(p[:len(p)/2])
		return n, errDisk
	}
	return f.cache.Write(p)
}

func (f *failing) Sync() error {
	if f.writes == f.fail && f.how == "sync" {
		return errDisk
	}
	_, err := f.cache.WriteTo(&f.kept)
	return err
}

func (f *failing) Close() error { return nil }

// watched is a hall whose keys tell what they sign.
type watched struct {
	*hall
	asked *[][]byte
}

func (w watched) key(authority string, k Key, want crypto.PublicKey) (openKey, error) {
	opened, err := w.hall.key(authority, k, want)
	if err == nil {
		opened.signer = telling{opened.signer.(hsm.Signer), w.asked}
	}
	return opened, err
}

type telling struct {
	hsm.Signer
	asked *[][]byte
}

func (s telling) SignMessage(random io.Reader, message []byte, o crypto.SignerOpts) ([]byte, error) {
	*s.asked = append(*s.asked, bytes.Clone(message))
	return s.Signer.SignMessage(random, message, o)
}

func (s telling) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key was given a digest, and could not see what it signs")
}

const rootPlan = `
ceremony: root-alone
output: out
authorities:
  - name: root-1
    key: {algorithm: ecdsa-p256, label: root-%d}
    subject: {common_name: "Example Root CA 1"}
    validity: 20y
    crl: {validity: 180d}
`

// TestDiskFailuresLeaveNoSignatureUnrecorded has the disk fail at each line of a transcript in each way, and compares what the keys
// signed with the intents that survived.
func TestDiskFailuresLeaveNoSignatureUnrecorded(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	const lines = 13 // of an undisturbed ceremony
	for fail := 1; fail <= lines+1; fail++ {
		how := []string{"full", "torn", "sync"}[fail%3]
		p := plan(t, t.TempDir(), fmt.Sprintf(rootPlan, fail))
		if err := os.Mkdir(p.OutputDir(), 0o700); err != nil {
			t.Fatal(err)
		}
		disk, asked := &failing{fail: fail, how: how}, [][]byte{}
		h := &hall{token: token, record: newTranscript(disk, clock), dir: p.OutputDir(), say: func(string, ...any) {}}
		a := newAct(p, ceremonyTime, rand.Reader, watched{h, &asked})
		err := h.play(t.Context(), a)
		if fail <= lines && !errors.Is(err, errDisk) || fail > lines && (err != nil || disk.writes != lines) {
			t.Fatalf("failure %q at line %d of %d: %v", how, fail, disk.writes, err)
		}
		intended := survivingIntents(t, disk.kept.Bytes())
		for _, tbs := range asked {
			if !intended[sha256.Sum256(tbs)] {
				t.Errorf("failure %q at line %d: a signature without a durable intent", how, fail)
			}
		}
		if fail > lines && len(asked) != 2 {
			t.Errorf("%d signatures were seen", len(asked))
		}
		if written, err := filepath.Glob(filepath.Join(p.OutputDir(), "*")); err != nil || len(asked) == 0 && len(written) > 0 {
			t.Errorf("files without signatures: %v, %v", written, err)
		}
	}
}

// survivingIntents are the digests of the intended bytes on whole lines, and checks that what survived is sound as far as it goes.
func survivingIntents(t *testing.T, kept []byte) map[[32]byte]bool {
	t.Helper()
	whole := kept[:bytes.LastIndexByte(kept, '\n')+1]
	if _, err := VerifyTranscript(bytes.NewReader(whole)); err != nil && !errors.Is(err, ErrIncomplete) && len(whole) > 0 {
		t.Errorf("what survived is not sound: %v", err)
	}
	intended := map[[32]byte]bool{}
	for _, e := range entries(t, whole) {
		if e.Intent != nil {
			intended[sha256.Sum256(e.Intent.TBS)] = true
		}
	}
	return intended
}

func TestKeyFailureIsKeptInTheTranscript(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	p := plan(t, t.TempDir(), hierarchyPlan)
	ctx, cancel := context.WithCancel(t.Context())
	var disk failing
	h := &hall{token: token, record: newTranscript(&disk, clock), dir: t.TempDir(), say: func(string, ...any) {}}
	// Those present leave when the root's certificate is signed.
	h.say = func(format string, _ ...any) {
		if strings.Contains(format, "signed") {
			cancel()
		}
	}
	if err := h.play(ctx, newAct(p, ceremonyTime, rand.Reader, h)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	s, err := VerifyTranscript(&disk.kept)
	if !errors.Is(err, ErrIncomplete) || s.Complete || !strings.Contains(s.Failure, "canceled") || len(s.Signed) != 1 || len(s.Keys) != 1 {
		t.Errorf("summary %+v, %v", s, err)
	}
}

// TestEveryNewLevelIsMadeDurable has an output directory several levels of which are new: the loss of one would be that of all below it.
func TestEveryNewLevelIsMadeDurable(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	if got, want := levels(deep+"/"), []string{deep, filepath.Join(dir, "a", "b"), filepath.Join(dir, "a"), dir}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	made, err := createTranscript(deep, clock)
	if err == nil {
		err = made.to.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, want := levels(deep), []string{deep, filepath.Join(dir, "a", "b")}; !slices.Equal(got, want) {
		t.Errorf("of what is there: got %v, want %v", got, want)
	}
	if got, want := levels("none"), []string{"none", "."}; !slices.Equal(got, want) {
		t.Errorf("relative: got %v, want %v", got, want)
	}
}

func TestWriteArtefact(t *testing.T) {
	dir := t.TempDir()
	for _, again := range []string{"one", "one"} {
		if err := writeArtefact(dir, "a.cer", []byte(again)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeArtefact(dir, "a.cer", []byte("two")); !errors.Is(err, os.ErrExist) {
		t.Errorf("another file in its place: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "a.cer")); err != nil || string(data) != "one" {
		t.Errorf("%q, %v", data, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := writeArtefact(filepath.Join(dir, "none"), "a.cer", nil); err == nil {
		t.Error("a directory that is not there was written to")
	}
}

func TestIncompleteTellsWhatIsUnanswered(t *testing.T) {
	key, err := throwAway(hsm.ECDSAP256, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var disk failing
	record := newTranscript(&disk, clock)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []entry{
		{Begin: &beginning{Ceremony: "x", Digest: digestOf([]byte("p")), Plan: []byte("p")}},
		{Token: &tokenLine{Serial: "s"}},
		{Key: &keyLine{Authority: "root", SPKI: public, SPKIDigest: hexDigest(public)}},
	} {
		if err := record.record(e); err != nil {
			t.Fatal(err)
		}
	}
	serial, err := issuance.NewSerial(ceremonyTime, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := record.intents("root", "root").Record(t.Context(), issuance.Signing{Kind: issuance.Final, Serial: serial, TBS: []byte("tbs")}); err != nil {
		t.Fatal(err)
	}
	s, err := VerifyTranscript(&disk.kept)
	if !errors.Is(err, ErrIncomplete) || !slices.Equal(s.Unanswered, []string{"root"}) {
		t.Errorf("summary %+v, %v", s, err)
	}
}

func FuzzTranscript(f *testing.F) {
	var disk failing
	record := newTranscript(&disk, clock)
	if err := record.record(entry{Begin: &beginning{Ceremony: "x", Digest: digestOf([]byte("p")), Plan: []byte("p")}}); err != nil {
		f.Fatal(err)
	}
	if err := record.end(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(disk.kept.Bytes(), false)
	f.Add([]byte(`{"v":1,"n":1,"time":"2026-11-24T10:30:15.000000Z","prev":"`+genesis+`","intent":{"issuer":"a","subject":"a","kind":"crl","number":"1","tbs":"AA=="}}`), true)
	f.Fuzz(func(t *testing.T, text []byte, chain bool) {
		if chain { // let the fuzzer past the hash
			text = []byte(lineStart + hexDigest(text) + lineMiddle + string(text) + lineEnd)
		}
		s, err := VerifyTranscript(bytes.NewReader(text))
		if err == nil && (!s.Complete || s.Head == "") {
			t.Fatalf("accepted without an end: %+v", s)
		}
		for line := range bytes.Lines(text) {
			e, _, err := decode(line)
			if err != nil {
				continue
			}
			if again, _, err := e.encode(); err != nil || !bytes.Equal(again, line) {
				t.Fatalf("%q is written as %q", line, again)
			}
		}
	})
}
