package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// devFile is $CHANCERY_HOME/dev.json: how to reach a running `chancery dev`. Tools read it; the API tokens in it make it a secret file.
type devFile struct {
	API          string            `json:"api"`
	Distribution string            `json:"distribution"`
	Operations   string            `json:"operations"`
	CABundle     string            `json:"ca_bundle"`
	Tokens       map[string]string `json:"tokens"` // by role
	Issuer       string            `json:"issuer"`
	DatabaseURL  string            `json:"database_url"`
	PKCS11       devToken          `json:"pkcs11"`
}

// devToken tells other PKCS#11 programs how to open the token of `chancery dev`.
type devToken struct {
	Module  string `json:"module"`
	Token   string `json:"token"`
	PINFile string `json:"pin_file"`
	Conf    string `json:"softhsm2_conf"` // for the environment variable SOFTHSM2_CONF
}

// home is the directory of `chancery dev`.
func (a *app) home() (string, error) {
	dir := a.lookup("CHANCERY_HOME")
	if dir == "" {
		dir = ".chancery"
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("finding CHANCERY_HOME: %w", err)
	}
	return abs, nil
}

// readDevFile reads dev.json; fs.ErrNotExist before the first run.
func readDevFile(home string) (devFile, error) {
	var d devFile
	data, err := os.ReadFile(filepath.Join(home, "dev.json"))
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("reading %s: %w", filepath.Join(home, "dev.json"), err)
	}
	return d, nil
}

// knows tells whether an API token is one of the file's.
func (d devFile) knows(token string) bool {
	return slices.Contains(slices.Collect(maps.Values(d.Tokens)), token)
}

func (d devFile) write(home string) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(home, "dev.json"), append(data, '\n'), 0o600)
}

// lockHome makes sure that one `chancery dev` at most works in a home. The lock ends with the process, however it ends.
func lockHome(home string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(home, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", home, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another `chancery dev` is running in %s; stop it, or choose another CHANCERY_HOME", home)
	}
	return func() { _ = f.Close() }, nil
}
