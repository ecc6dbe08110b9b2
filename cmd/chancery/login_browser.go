package main

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
)

// browse shows a person the address to sign in at, and opens it in the browser unless that is not wanted. Where no browser can be started
// the person opens the address by hand.
func (a *app) browse(ctx context.Context, address string, open bool) error {
	fmt.Fprintf(a.Stderr, "Sign in at:\n\n%s\n\n", address)
	if browser := a.browser(); open && len(browser) > 0 {
		// The browser outlives this program: it is not ended with the context.
		command := exec.CommandContext(context.WithoutCancel(ctx), browser[0], append(browser[1:], address)...)
		command.Env = a.Environ
		if err := command.Start(); err != nil {
			fmt.Fprintf(a.Stderr, "No browser could be started (%v): open the address yourself.\n", err)
		} else {
			go func() { _ = command.Wait() }() // what becomes of the browser is the person's affair
		}
	}
	fmt.Fprintln(a.Stderr, "Waiting for the browser to come back. If it is on another machine, interrupt this and give --device.")
	return nil
}

// browser is the command that opens an address; empty where there is none to be expected.
func (a *app) browser() []string {
	if named, _, _ := strings.Cut(a.lookup("BROWSER"), ":"); named != "" {
		return strings.Fields(named)
	}
	switch {
	case runtime.GOOS == "darwin":
		return []string{"open"}
	case a.lookup("DISPLAY") != "" || a.lookup("WAYLAND_DISPLAY") != "":
		return []string{"xdg-open"}
	}
	return nil
}
