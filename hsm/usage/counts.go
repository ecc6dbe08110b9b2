package usage

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/chancery-ca/chancery/hsm"
)

// counts keeps numbers of uses in a file, which the processes of a host share.
type counts struct {
	path string
	mu   sync.Mutex
}

// use counts one use, or returns errUsedUp where there were as many as there may be. It is on the disk before the key is used: a crash may
// count a use that was not made, and never the other way round.
func (c *counts) use(token string, key hsm.KeyRef, most int64) error {
	if c == nil {
		return errors.New("uses are bounded, and there is no file to count them in")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	lock, err := os.OpenFile(c.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	used := map[string]int64{}
	data, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("counting uses: %w", err)
	}
	if err == nil {
		err := json.Unmarshal(data, &used)
		if err == nil && used == nil {
			err = errors.New("it holds null")
		}
		if err != nil {
			return fmt.Errorf("counting uses: %s is damaged; restore it, or write it anew with the counts that the journal tells: %w", c.path, err)
		}
	}
	whose := token + "/" + hex.EncodeToString(key.ID) + "/"
	name := whose + key.Label
	total := used[name]
	if len(key.ID) > 0 { // a key with another label is the same key
		total = 0
		for other, n := range used {
			if strings.HasPrefix(other, whose) {
				total += n
			}
		}
	}
	if total >= most {
		return fmt.Errorf("%w (%d)", errUsedUp, most)
	}
	used[name]++
	if data, err = json.MarshalIndent(used, "", "  "); err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	return replace(c.path, append(data, '\n'))
}

// replace writes a file whole or not at all. A crash after it has returned loses nothing: its name is durable as well.
func replace(path string, data []byte) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	defer dir.Close()
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("counting uses: %w", err)
	}
	return nil
}
