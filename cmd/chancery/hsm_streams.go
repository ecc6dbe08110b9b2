package main

import (
	"errors"
	"os"

	"golang.org/x/term"
)

// standardStream is how a flag that names a file says standard input or output.
const standardStream = "-"

// streams are what a command reads and writes, by the values of its flags: "-" is a standard stream.
type streams struct {
	in, out []string
	octets  bool // what comes out is for programs, not for people
}

// checkStreams refuses, before anything is done in a token, what the standard streams cannot be: shared, or a terminal that gets octets.
func (a *app) checkStreams(s streams) error {
	standard := func(paths []string) (n int) {
		for _, path := range paths {
			if path == standardStream {
				n++
			}
		}
		return n
	}
	switch {
	case standard(s.in) > 1:
		return misuse{errors.New("there is one standard input: name a file for all but one of the flags that say -")}
	case standard(s.out) > 1:
		return misuse{errors.New("there is one standard output: name a file for all but one of the flags that say -")}
	case s.octets && standard(s.out) == 1 && a.onTerminal():
		return misuse{errors.New("standard output is a terminal, and the result is octets: name a file, or send the output on with > or |")}
	}
	return nil
}

// onTerminal tells whether standard output is a terminal.
func (a *app) onTerminal() bool {
	out, ok := a.Stdout.(*os.File)
	return ok && term.IsTerminal(int(out.Fd()))
}

// octetsTo is where a result of octets goes: without a file, and unless JSON is asked for, to standard output.
func (a *app) octetsTo(path string) string {
	if path == "" && a.output != "json" {
		return standardStream
	}
	return path
}
