package hsm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/miekg/pkcs11"
)

// modules are the PKCS#11 libraries that this process has loaded. What a library holds (initialised or not, slots, log-ins) belongs to
// the process, whoever calls it: a second owner would log in without a PIN being checked and finalise the first one's sessions. So there
// is one owner for each library, and this is the package's one variable.
var modules registry

type registry struct {
	mu     sync.Mutex
	loaded []*module
}

// module is a loaded library. It stays loaded until the process ends, because libraries with threads or exit handlers of their own do
// not survive being unloaded; it is initialised only while a token is open.
type module struct {
	path string // cleaned and free of symbolic links: the one spelling that crypto11 sees, which counts references by it
	file fs.FileInfo
	ctx  *pkcs11.Ctx

	mu    sync.Mutex // guards what follows, and every call that initialises, finalises or logs in
	open  []*Token
	apart bool // while a token is open: crypto11 and this package have an instance of the library each; see join
}

// load returns the owner of a library, and loads the library if this is the first call for it.
func (r *registry) load(path string) (*module, error) {
	if path == "" {
		return nil, errors.New("no PKCS#11 module is configured: give the path of the vendor's library")
	}
	resolved, file, err := locate(path)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.loaded {
		// The dynamic loader takes one file under two names for one library, and so does this.
		if m.path == resolved || os.SameFile(m.file, file) {
			return m, nil
		}
	}
	ctx := pkcs11.New(resolved)
	if ctx == nil {
		return nil, fmt.Errorf("PKCS#11 module %s cannot be loaded: it is no PKCS#11 library, or one for another architecture, "+
			"or a library that it needs is missing (ldd %[1]s tells)", resolved)
	}
	m := &module{path: resolved, file: file, ctx: ctx}
	r.loaded = append(r.loaded, m)
	return m, nil
}

func locate(path string) (string, fs.FileInfo, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", nil, fmt.Errorf("PKCS#11 module %s: %w", path, err)
	}
	resolved, err := filepath.EvalSymlinks(absolute)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, fmt.Errorf("PKCS#11 module %s is not there: correct the path or install the vendor's software "+
			"(SoftHSM on Debian or Ubuntu: apt-get install softhsm2): %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return "", nil, fmt.Errorf("PKCS#11 module %s: %w", path, err)
	}
	file, err := os.Stat(resolved)
	if err != nil {
		return "", nil, fmt.Errorf("PKCS#11 module %s: %w", path, err)
	}
	if file.IsDir() {
		return "", nil, fmt.Errorf("PKCS#11 module %s is a directory; give the path of the library in it", path)
	}
	return resolved, file, nil
}

// initialised runs work while the library is initialised, and initialises and finalises it around work when no token is open.
// The caller holds m.mu.
func (m *module) initialised(work func() error) error {
	if len(m.open) > 0 {
		return work()
	}
	if err := m.ctx.Initialize(); err != nil {
		if is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
			return fmt.Errorf("PKCS#11 module %s has another owner in this process; only one can hold it: %w: %w", m.path, ErrInUse, err)
		}
		return fmt.Errorf("initialising PKCS#11 module %s: %w", m.path, classified(err))
	}
	err := work()
	return errors.Join(err, m.ctx.Finalize())
}

// join sees to it that ctx can be used while a token is open. crypto11 has initialised the library, and nearly every library is one for the
// whole process. p11-kit's (p11-kit-proxy.so, p11-kit-client.so) give each caller that loads them an instance of its own, with sessions and
// log-ins of its own: then this package's instance has to be initialised besides crypto11's. The caller holds m.mu and calls leave later.
func (m *module) join() error {
	if len(m.open) > 0 {
		return nil
	}
	err := m.ctx.Initialize()
	if m.apart = err == nil; m.apart || is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		return nil
	}
	return fmt.Errorf("initialising PKCS#11 module %s: %w", m.path, classified(err))
}

// leave finalises this package's instance with the last open token. The caller holds m.mu.
func (m *module) leave() error {
	if len(m.open) > 0 || !m.apart {
		return nil
	}
	m.apart = false
	if err := m.ctx.Finalize(); err != nil {
		return fmt.Errorf("finalising PKCS#11 module %s: %w", m.path, classified(err))
	}
	return nil
}
