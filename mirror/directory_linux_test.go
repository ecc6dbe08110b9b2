package mirror_test

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/mirror"
)

// A volume of its own has a folder lost+found, which is root's alone. The service is not root.
func TestADirectoryWithAFolderOfOthers(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "lost+found"), 0); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(root, ".chancery-1")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{filepath.Dir(root), root} {
		if err := os.Chmod(folder, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	opened := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		if os.Getuid() == 0 {
			const nobody = 65534
			_, _, _ = syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
		}
		_, err := mirror.OpenDirectory(root)
		opened <- err
	}()
	if err := <-opened; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("what a crash has left stays: %v", err)
	}
}
