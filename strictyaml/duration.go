package strictyaml

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a length of time as people write it: "90d", "720h", "1y", "2d12h30m". A day is 86,400 seconds, a year 365 days.
type Duration time.Duration

var (
	durationForm = regexp.MustCompile(`^(?:(\d+)y)?(?:(\d+)d)?((?:\d+h)?(?:\d+m)?(?:\d+s)?)$`)
	dayLength    = 24 * time.Hour
)

// ParseDuration reads a duration. It is never negative.
func ParseDuration(s string) (time.Duration, error) {
	form := durationForm.FindStringSubmatch(s)
	if form == nil || s == "" {
		return 0, fmt.Errorf("%q is not a duration; write for example 90d, 720h or 1y", s)
	}
	var total time.Duration
	for i, unit := range []time.Duration{365 * dayLength, dayLength} {
		if form[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(form[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-total)/unit) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total += time.Duration(n) * unit
	}
	if form[3] != "" {
		rest, err := time.ParseDuration(form[3])
		if err != nil || rest > math.MaxInt64-total {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total += rest
	}
	return total, nil
}

// UnmarshalYAML reads a duration from a YAML string.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	parsed, err := ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode {
		err = fmt.Errorf("a duration is a word such as 90d")
	}
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s", n.Line, err)}}
	}
	*d = Duration(parsed)
	return nil
}

// MarshalYAML writes the duration in the form that is read.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// String is the shortest form that is read back as the same duration.
func (d Duration) String() string {
	t := time.Duration(d)
	if t != 0 && t%dayLength == 0 {
		return fmt.Sprintf("%dd", t/dayLength)
	}
	return t.String()
}
