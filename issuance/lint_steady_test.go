package issuance

import (
	"fmt"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/ssa"
)

// addUnsteady notes the variables that a function other than an initialiser does more with than read.
func (a *analysis) addUnsteady(f *ssa.Function) {
	if f.Parent() == nil && f.Signature.Recv() == nil && (f.Name() == "init" || strings.HasPrefix(f.Name(), "init#")) {
		return
	}
	for _, b := range f.Blocks {
		for _, i := range b.Instrs {
			if identifierWritten(i) {
				a.written = append(a.written, f.String())
			}
			for _, o := range i.Operands(nil) {
				if g, ok := (*o).(*ssa.Global); ok && a.unsteady[g] == "" {
					if why := onlyRead(g, i, map[ssa.Instruction]bool{}); why != "" {
						a.unsteady[g] = why + " in " + f.String()
					}
				}
			}
		}
	}
}

// onlyRead says what an instruction does with a value, or with what can be reached through it, but read it.
func onlyRead(v ssa.Value, i ssa.Instruction, seen map[ssa.Instruction]bool) string {
	if seen[i] || isIdentifier(v.Type()) {
		return "" // an identifier's arcs are not written to by anybody: see identifierWritten
	}
	seen[i] = true
	switch i := i.(type) {
	case *ssa.If, *ssa.BinOp, *ssa.DebugRef:
		return ""
	case *ssa.Lookup, *ssa.Index, *ssa.IndexAddr, *ssa.Field, *ssa.FieldAddr, *ssa.UnOp, *ssa.Range, *ssa.Next, *ssa.Extract,
		*ssa.Phi, *ssa.Slice, *ssa.ChangeType, *ssa.ChangeInterface, *ssa.Convert, *ssa.MakeInterface, *ssa.TypeAssert:
		made := i.(ssa.Value)
		if !canReach(made.Type()) {
			return ""
		}
		for _, next := range *made.Referrers() {
			if why := onlyRead(made, next, seen); why != "" {
				return why
			}
		}
		return ""
	case *ssa.Store:
		if slot, ok := i.Addr.(*ssa.IndexAddr); ok && i.Val == v && isArguments(slot.X) {
			return ""
		}
	case *ssa.Call:
		if b, ok := i.Call.Value.(*ssa.Builtin); ok && (b.Name() == "len" || b.Name() == "append" && i.Call.Args[0] != v) {
			return ""
		}
		callee := i.Call.StaticCallee()
		if callee == nil {
			break
		}
		if writes, known := trusted[nameOf(callee)]; known && !slices.ContainsFunc(writes, func(at int) bool { return i.Call.Args[at] == v }) {
			return ""
		}
		if callee.Blocks == nil {
			break
		}
		for at, arg := range i.Call.Args {
			if arg != v {
				continue
			}
			for _, next := range *callee.Params[at].Referrers() {
				if why := onlyRead(callee.Params[at], next, seen); why != "" {
					return why
				}
			}
		}
		return ""
	}
	return fmt.Sprintf("%T %s", i, i)
}

// isArguments tells whether an array holds the last arguments of a call of a trusted function, and nothing else.
func isArguments(v ssa.Value) bool {
	array, ok := v.(*ssa.Alloc)
	if !ok || array.Comment != "varargs" {
		return false
	}
	for _, i := range *array.Referrers() {
		slice, ok := i.(*ssa.Slice)
		if _, isSlot := i.(*ssa.IndexAddr); isSlot {
			continue
		}
		if !ok {
			return false
		}
		for _, use := range *slice.Referrers() {
			call, ok := use.(*ssa.Call)
			if !ok || call.Call.StaticCallee() == nil || !isTrusted(call.Call.StaticCallee()) {
				return false
			}
		}
	}
	return true
}

func isTrusted(f *ssa.Function) bool {
	writes, known := trusted[nameOf(f)]
	return known && len(writes) == 0
}

func isIdentifier(t types.Type) bool {
	named, ok := t.(*types.Named)
	return ok && named.Obj().Name() == "ObjectIdentifier"
}

// identifierWritten tells whether an instruction may write an arc of an identifier that its function has not made, or takes one for a list
// of another type, of which that would not be seen.
func identifierWritten(i ssa.Instruction) bool {
	switch i := i.(type) {
	case *ssa.ChangeType:
		return isIdentifier(i.X.Type()) && !isIdentifier(i.Type())
	case *ssa.Store:
		element, ok := i.Addr.(*ssa.IndexAddr)
		return ok && isIdentifier(element.X.Type()) && !local(element)
	case *ssa.Call:
		b, ok := i.Call.Value.(*ssa.Builtin)
		return ok && (b.Name() == "copy" || b.Name() == "clear") && isIdentifier(i.Call.Args[0].Type()) && !local(i.Call.Args[0]) &&
			!neverAssigned(i.Call.Args[0])
	case *ssa.Slice: // what is appended to a part is written over the rest
		return isIdentifier(i.X.Type()) && i.High != nil && !local(i.X) && slices.ContainsFunc(*i.Referrers(), func(use ssa.Instruction) bool {
			call, ok := use.(*ssa.Call)
			return !ok || call.Call.StaticCallee() == nil || !isTrusted(call.Call.StaticCallee())
		})
	}
	return false
}

// neverAssigned tells whether a value is a field of a variable of the function's own to which the function assigns nothing, so that it is
// what a decoder has put there.
func neverAssigned(v ssa.Value) bool {
	load, ok := v.(*ssa.UnOp)
	if !ok {
		return false
	}
	field, ok := load.X.(*ssa.FieldAddr)
	if !ok {
		return false
	}
	variable, ok := field.X.(*ssa.Alloc)
	return ok && !slices.ContainsFunc(*variable.Referrers(), func(i ssa.Instruction) bool {
		same, isField := i.(*ssa.FieldAddr)
		store, isStore := i.(*ssa.Store)
		return isStore && store.Addr == variable || isField && same.Field == field.Field &&
			slices.ContainsFunc(*same.Referrers(), func(i ssa.Instruction) bool { _, isStore := i.(*ssa.Store); return isStore })
	})
}

// canReach tells whether memory can be reached through a value of a type.
func canReach(t types.Type) bool {
	switch t := t.Underlying().(type) {
	case *types.Basic:
		return t.Kind() == types.UnsafePointer
	case *types.Struct:
		for f := range t.Fields() {
			if canReach(f.Type()) {
				return true
			}
		}
		return false
	case *types.Array:
		return canReach(t.Elem())
	case *types.Tuple:
		for v := range t.Variables() {
			if canReach(v.Type()) {
				return true
			}
		}
		return false
	case *types.Signature:
		return false
	}
	return true
}

// local tells whether what an address or a slice points to was made by the function itself.
func local(v ssa.Value) bool { return made(v, map[ssa.Value]bool{}) }

func made(v ssa.Value, seen map[ssa.Value]bool) bool {
	if seen[v] {
		return true
	}
	seen[v] = true
	switch v := v.(type) {
	case *ssa.Alloc, *ssa.MakeSlice, *ssa.MakeMap, *ssa.Const:
		return true
	case *ssa.FieldAddr:
		return made(v.X, seen)
	case *ssa.IndexAddr:
		return made(v.X, seen)
	case *ssa.Slice:
		return made(v.X, seen)
	case *ssa.ChangeType:
		return made(v.X, seen)
	case *ssa.MakeInterface:
		return made(v.X, seen)
	case *ssa.Convert:
		return true // of a string to octets, or the like: a copy
	case *ssa.Phi:
		return !slices.ContainsFunc(v.Edges, func(e ssa.Value) bool { return !made(e, seen) })
	case *ssa.Call:
		if b, ok := v.Call.Value.(*ssa.Builtin); ok {
			return b.Name() == "append" && made(v.Call.Args[0], seen)
		}
		return v.Call.StaticCallee() != nil && nameOf(v.Call.StaticCallee()) == "math/big.NewInt"
	}
	return false
}
