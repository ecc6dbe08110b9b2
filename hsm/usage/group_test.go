package usage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/usage"
)

// userEnv turns the test binary into the process of another user, who uses a key once by the policy that it names.
const userEnv = "CHANCERY_USAGE_TEST_POLICY"

func TestMain(m *testing.M) {
	if path := os.Getenv(userEnv); path != "" {
		syscall.Umask(0o077) // the strictest that users have
		p, err := usage.Load(path, "")
		if err == nil {
			err = p.Permit(context.Background(), hsm.Operation{Op: hsm.OpSign, Token: "1", Key: hsm.KeyRef{Label: "k"}})
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The users of one group share the counts of a directory that is the group's, whoever comes first, and root with them. Nobody else has a part
// in them.
func TestAGroupSharesTheCounts(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can be several users")
	}
	const group, other = 4700, 4800
	top, err := os.MkdirTemp("", "usage-") // users do not get into a directory of the test's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	binary, policy := filepath.Join(top, "user"), filepath.Join(top, "usage.yaml")
	dir := policy + ".uses"
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(binary, program, 0o755), os.Chmod(top, 0o755), os.Mkdir(dir, 0o750),
		os.WriteFile(policy, []byte("others: permit\nkeys:\n  - {key: {label: k}, operations: [sign], uses: 4}\n"), 0o644),
		os.Chown(dir, 0, group), os.Chmod(dir, 0o770|fs.ModeSetgid),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid, gid uint32) (said string, err error) {
		cmd := exec.CommandContext(t.Context(), binary)
		cmd.Dir, cmd.Env = top, append(os.Environ(), userEnv+"="+policy)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for _, uid := range []uint32{4701, 4702, 0, 4701} {
		if said, err := as(uid, group); err != nil {
			t.Errorf("user %d: %v, %s", uid, err, said)
		}
	}
	for _, uid := range []uint32{4701, 4702, 0} {
		if said, err := as(uid, group); err == nil || !strings.Contains(said, "as many times as it may") {
			t.Errorf("user %d, once more: %v, %s", uid, err, said)
		}
	}
	if said, err := as(4801, other); err == nil || !strings.Contains(said, "permission denied") {
		t.Errorf("a stranger: %v, %s", err, said)
	}
	for _, name := range []string{"uses.json", "uses.json.lock"} {
		about, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if owner := about.Sys().(*syscall.Stat_t); about.Mode().Perm() != 0o660 || owner.Gid != group {
			t.Errorf("%s is of group %d, mode %o", name, owner.Gid, about.Mode().Perm())
		}
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// Counts that anybody can change count nothing, and no process is led to another file.
func TestCountsThatOthersCanChangeAreRefused(t *testing.T) {
	t.Parallel()
	const text = "others: permit\nkeys:\n  - {key: {label: k}, operations: [sign], uses: 3}\n"
	sign := hsm.Operation{Op: hsm.OpSign, Token: "1", Key: hsm.KeyRef{Label: "k"}}
	for name, c := range map[string]struct {
		change func(policy string) error
		says   string
	}{
		"the directory": {func(policy string) error { return os.Chmod(filepath.Dir(policy), 0o777|fs.ModeSticky) }, "chmod o-w"},
		"the counts":    {func(policy string) error { return os.Chmod(policy+".uses.json", 0o666) }, "everybody can write"},
		"the lock":      {func(policy string) error { return os.Chmod(policy+".uses.json.lock", 0o666) }, "everybody can write"},
		"a link": {func(policy string) error {
			return errors.Join(os.Rename(policy+".uses.json.lock", policy+".elsewhere"), os.Symlink(policy+".elsewhere", policy+".uses.json.lock"))
		}, "symbolic links"},
		"a directory in its place": {func(policy string) error {
			return errors.Join(os.Remove(policy+".uses.json"), os.Mkdir(policy+".uses.json", 0o700))
		}, "no regular file"},
	} {
		path := filepath.Join(private(t), "usage.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := usage.Load(path, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Permit(t.Context(), sign); err != nil {
			t.Fatal(err)
		}
		if about, err := os.Stat(path + ".uses.json"); err != nil || about.Mode().Perm() != 0o600 {
			t.Errorf("the counts of one user: %v, %v", about.Mode(), err)
		}
		if err := c.change(path); err != nil {
			t.Fatal(err)
		}
		if err := p.Permit(t.Context(), sign); !errors.Is(err, hsm.ErrNotPermitted) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// A directory that is made for the counts later does not begin them anew.
func TestCountsMoveIntoADirectory(t *testing.T) {
	t.Parallel()
	policy := filepath.Join(private(t), "usage.yaml")
	if err := os.WriteFile(policy, []byte("others: permit\nkeys:\n  - {key: {label: k}, operations: [sign], uses: 2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := usage.Load(policy, "")
	if err != nil {
		t.Fatal(err)
	}
	sign := hsm.Operation{Op: hsm.OpSign, Token: "1", Key: hsm.KeyRef{Label: "k"}}
	if err := p.Permit(t.Context(), sign); err != nil {
		t.Fatal(err)
	}
	path, dir := policy+".uses.json", policy+".uses"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.Permit(t.Context(), sign); err == nil || !strings.Contains(err.Error(), "mv "+path+" "+dir+"/uses.json") {
		t.Errorf("two places: %v", err)
	}
	if err := os.Rename(path, filepath.Join(dir, "uses.json")); err != nil {
		t.Fatal(err)
	}
	if err := p.Permit(t.Context(), sign); err != nil {
		t.Errorf("moved: %v", err)
	}
	if err := p.Permit(t.Context(), sign); err == nil || !strings.Contains(err.Error(), "as many times as it may") {
		t.Errorf("beyond the bound: %v", err)
	}
}
