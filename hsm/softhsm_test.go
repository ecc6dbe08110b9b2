package hsm_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
)

func TestFindSoftHSM(t *testing.T) {
	found, err := hsm.FindSoftHSM()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(hsm.ModuleEnv, found)
	if again, err := hsm.FindSoftHSM(); err != nil || again != found {
		t.Errorf("by %s: %q, %v", hsm.ModuleEnv, again, err)
	}
	t.Setenv(hsm.ModuleEnv, "/nonexistent/libsofthsm2.so")
	if _, err := hsm.FindSoftHSM(); err == nil || !strings.Contains(err.Error(), hsm.ModuleEnv) ||
		!strings.Contains(err.Error(), "apt-get install softhsm2") {
		t.Errorf("error is %v", err)
	}
}

func TestWriteSoftHSMConf(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a directory", "hsm")
	var before os.FileInfo
	for round := range 2 {
		conf, err := hsm.WriteSoftHSMConf(dir)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(conf)
		if err != nil || !strings.Contains(string(text), "directories.tokendir = "+dir+"/tokens\n") {
			t.Errorf("%s: %q, %v", conf, text, err)
		}
		for path, mode := range map[string]os.FileMode{conf: 0o600, dir: 0o700, filepath.Join(dir, "tokens"): 0o700} {
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
		info, err := os.Stat(conf)
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 && !info.ModTime().Equal(before.ModTime()) {
			t.Error("what was right was written again")
		}
		before = info
	}
	if _, err := hsm.WriteSoftHSMConf(filepath.Join(t.TempDir(), "#1")); err == nil {
		t.Error("a path was taken that SoftHSM reads as a comment")
	}
}
