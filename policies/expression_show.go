package policies

import (
	"fmt"
	"slices"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// showValue writes a value of an expression for people: quoted where it comes from outside, and bounded.
func showValue(v ref.Val) string {
	switch v := v.(type) {
	case types.String:
		return quote(string(v))
	case types.Timestamp:
		return v.UTC().Format(time.RFC3339)
	case types.Duration:
		return formatDuration(v.Duration)
	case types.Bool, types.Int, types.Uint, types.Double:
		return fmt.Sprint(v.Value())
	case traits.Lister:
		return "[" + some(elements(v.Iterator())) + "]"
	case traits.Mapper:
		keys := elements(v.Iterator())
		slices.Sort(keys)
		return "{" + some(keys) + "}"
	}
	return "an object"
}

func elements(it traits.Iterator) (all []string) {
	for it.HasNext() == types.True && len(all) <= maxListed {
		all = append(all, showValue(it.Next()))
	}
	return all
}
