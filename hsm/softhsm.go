package hsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// SoftHSMEnv is the environment variable that SoftHSM takes the path of its configuration from, whenever a library is initialised.
const SoftHSMEnv = "SOFTHSM2_CONF"

// ModuleEnv names SoftHSM's library where FindSoftHSM does not find it.
const ModuleEnv = "CHANCERY_SOFTHSM_MODULE"

// softHSMPaths are where distributions put the library.
var softHSMPaths = []string{
	"/usr/lib/softhsm/libsofthsm2.so",                       // Debian, Ubuntu, Alpine
	"/usr/lib/*/softhsm/libsofthsm2.so",                     // Debian multiarch
	"/usr/lib64/pkcs11/libsofthsm2.so",                      // Fedora, RHEL
	"/usr/lib64/softhsm/libsofthsm.so",                      // Fedora, RHEL
	"/usr/lib/pkcs11/libsofthsm2.so",                        // Arch
	"/usr/local/lib/softhsm/libsofthsm2.so",                 // from source, FreeBSD
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",              // macOS, Apple silicon
	"/home/linuxbrew/.linuxbrew/lib/softhsm/libsofthsm2.so", // Homebrew on Linux
}

// FindSoftHSM returns the path of SoftHSM's library: what CHANCERY_SOFTHSM_MODULE says, else where distributions put it.
func FindSoftHSM() (string, error) {
	if path := os.Getenv(ModuleEnv); path != "" {
		resolved, _, err := locate(path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", ModuleEnv, err)
		}
		return resolved, nil
	}
	for _, pattern := range softHSMPaths {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", fmt.Errorf("looking for SoftHSM in %s: %w", pattern, err)
		}
		for _, path := range found {
			if resolved, _, err := locate(path); err == nil {
				return resolved, nil
			}
		}
	}
	return "", fmt.Errorf("SoftHSM is not installed (looked for %s): %s, or set %s to the path of libsofthsm2.so",
		strings.Join(softHSMPaths, ", "), softHSMInstall(), ModuleEnv)
}

func softHSMInstall() string {
	if runtime.GOOS == "darwin" {
		return "run brew install softhsm"
	}
	return "run apt-get install softhsm2 (Debian, Ubuntu), dnf install softhsm (Fedora), or your system's like"
}

// WriteSoftHSMConf makes dir a place for SoftHSM tokens, if it is not one yet, and returns the path of the configuration to put into
// the environment variable SOFTHSM2_CONF before the library is first used. Everything in dir is the owner's alone; a copy of dir is a
// copy of every key in it, protected by the PINs only.
func WriteSoftHSMConf(dir string) (string, error) {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("SoftHSM directory %s: %w", dir, err)
	}
	if strings.ContainsAny(absolute, "#\r\n") {
		return "", fmt.Errorf("SoftHSM directory %q: SoftHSM's configuration cannot hold a path with # or a line break", absolute)
	}
	tokens := filepath.Join(absolute, "tokens")
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return "", fmt.Errorf("SoftHSM directory: %w", err)
	}
	conf := filepath.Join(absolute, "softhsm2.conf")
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	old, err := os.ReadFile(conf)
	if err == nil && string(old) == text {
		return conf, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("SoftHSM configuration: %w", err)
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("SoftHSM configuration: %w", err)
	}
	return conf, nil
}
