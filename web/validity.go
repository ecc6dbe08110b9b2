package web

import (
	"errors"
	"strconv"
	"time"
)

// day is 86,400 seconds, as the Baseline Requirements, section 6.3.2, count.
const day = 24 * time.Hour

// maxValidity bounds what is read at all. Profiles allow far less.
const maxValidity = 100 * 366 * day

var (
	errNotValidity = errors.New("the validity is not a length of time")
	errValidity    = errors.New("the validity is zero or longer than a hundred years")
)

const validityHint = `write days, hours, minutes and seconds in this order, in whole numbers: "90d", "720h", "1d12h"`

// parseValidity reads a length of time: "90d", "720h", "1d12h30m". Each unit stands at most once, the largest first.
func parseValidity(s string) (time.Duration, error) {
	units := []struct {
		letter byte
		length time.Duration
	}{{'d', day}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	if s == "" {
		return 0, errNotValidity
	}
	var total time.Duration
	for s != "" {
		digits := 0
		for digits < len(s) && '0' <= s[digits] && s[digits] <= '9' {
			digits++
		}
		if digits == 0 || digits == len(s) {
			return 0, errNotValidity
		}
		for len(units) > 0 && units[0].letter != s[digits] {
			units = units[1:]
		}
		if len(units) == 0 {
			return 0, errNotValidity
		}
		count, err := strconv.ParseInt(s[:digits], 10, 64)
		if err != nil || count > int64((maxValidity-total)/units[0].length) {
			return 0, errValidity
		}
		total += time.Duration(count) * units[0].length
		s, units = s[digits+1:], units[1:]
	}
	if total == 0 {
		return 0, errValidity
	}
	return total, nil
}
