package policies

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// day is 86,400 seconds, as the Baseline Requirements count it (section 6.3.2).
const day = 24 * time.Hour

// maxDuration is more than any certificate lasts; it keeps arithmetic on durations far from overflow.
const maxDuration = 100 * 366 * day

var errDuration = errors.New(`not a duration: write whole days as "90d", and less as "720h", "5m" or "30s"`)

// ParseDuration reads a duration: whole days ("90d") or what time.ParseDuration reads ("720h"). It is never negative and at most
// a hundred years.
func ParseDuration(s string) (time.Duration, error) {
	var d time.Duration
	if digits, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return 0, errDuration
		}
		d = time.Duration(n) * day
	} else {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			return 0, errDuration
		}
	}
	if d < 0 || d > maxDuration {
		return 0, fmt.Errorf("%s is not between 0 and 100 years", quote(s))
	}
	return d, nil
}

// formatDuration writes a duration as people say it: in days where it is whole days.
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
