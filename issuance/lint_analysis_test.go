package issuance

import (
	"encoding/asn1"
	"fmt"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/tools/go/packages"
	"golang.org/x/tools/go/ssa"
	"golang.org/x/tools/go/ssa/ssautil"
)

// analysis finds out what zlint's lints read of a certificate, from their code. A certificate is followed from the parameter of a method
// to each field that is taken of it, through every function of zlint and zcrypto on the way. What is not understood counts as reading
// everything, and so does what could make two runs differ: a clock, a variable that is not constant, a store to memory that is not the
// function's own.
type analysis struct {
	functions map[string]*ssa.Function // of followed packages, by full name
	built     map[*ssa.Package]bool    // the followed packages
	varying   map[*ssa.Global]bool     // identifiers of extensions, by whether the value of that extension varies
	unsteady  map[*ssa.Global]string   // variables that something changes, or may
	written   []string                 // functions that may write into an object identifier
}

// followed are the packages whose functions are looked into. Those of all others are taken at their word in trusted, or not called.
var followed = []string{
	"github.com/zmap/zlint/v3", "github.com/zmap/zlint/v3/lints/...", "github.com/zmap/zlint/v3/lint", zlintUtil,
	"github.com/zmap/zcrypto/x509", "github.com/zmap/zcrypto/x509/pkix",
}

const zlintUtil = "github.com/zmap/zlint/v3/util"

// analyse loads the followed packages as they are in go.mod, and further ones.
func analyse(t testing.TB, more ...string) *analysis {
	t.Helper()
	config := &packages.Config{Context: t.Context()}
	config.Mode = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedTypes |
		packages.NeedTypesSizes | packages.NeedTypesInfo | packages.NeedSyntax
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		config.BuildFlags = []string{"-race"} // or all that zlint imports would be compiled once more, without
	}
	loaded, err := packages.Load(config, append(more, followed...)...)
	if err != nil {
		t.Fatalf("loading zlint's source: %v", err)
	}
	for _, p := range loaded {
		for _, e := range p.Errors {
			t.Fatalf("loading %s: %v", p.PkgPath, e)
		}
	}
	program, built := ssautil.Packages(loaded, ssa.InstantiateGenerics)
	program.Build()
	a := &analysis{
		functions: map[string]*ssa.Function{}, built: map[*ssa.Package]bool{}, varying: map[*ssa.Global]bool{}, unsteady: map[*ssa.Global]string{},
	}
	for i, p := range built {
		a.built[p] = true
		a.addIdentifiers(p, loaded[i])
	}
	for f := range ssautil.AllFunctions(program) {
		if f.Blocks == nil {
			continue
		}
		a.functions[f.String()] = f
		a.addUnsteady(f)
	}
	return a
}

// addIdentifiers notes the variables of a package that are object identifiers written out.
func (a *analysis) addIdentifiers(p *ssa.Package, source *packages.Package) {
	for _, file := range source.Syntax {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Names) != len(spec.Values) {
				return true
			}
			for i, name := range spec.Names {
				literal, ok := spec.Values[i].(*ast.CompositeLit)
				g, isVar := p.Members[name.Name].(*ssa.Global)
				if !ok || !isVar || source.TypesInfo.Defs[name] != g.Object() || !isIdentifier(g.Object().Type()) {
					continue
				}
				var arcs asn1.ObjectIdentifier
				for _, e := range literal.Elts {
					if v := source.TypesInfo.Types[e].Value; v != nil {
						if arc, ok := constant.Int64Val(constant.ToInt(v)); ok {
							arcs = append(arcs, int(arc))
						}
					}
				}
				if len(arcs) == len(literal.Elts) {
					a.varying[g] = mayVary(arcs)
				}
			}
			return true
		})
	}
}

// kind is what is followed through a function.
type kind string

const (
	wholeCertificate kind = "certificate" // *x509.Certificate
	extensionList    kind = "extensions"  // its Extensions
	oneExtension     kind = "extension"   // one of them, or a pointer to one, of which the value may vary
	keyOfUnknownType kind = "key"         // its PublicKey
	subjectName      kind = "subject"     // a pointer to its Subject
	pointerTo        kind = "&"           // before another: a pointer to such a field
)

// reading is what one method reads, and all that it calls.
type reading struct {
	*analysis
	visited map[string]bool
	reads   facets
	why     map[string]bool // it reads everything
}

func (r *reading) add(format string, args ...any) {
	r.reads |= everything
	r.why[fmt.Sprintf(format, args...)] = true
}

// visit looks through a function that is called with values of these kinds, "" for others.
func (r *reading) visit(f *ssa.Function, args []kind) {
	visit := fmt.Sprint(f.String(), args)
	if r.visited[visit] {
		return
	}
	r.visited[visit] = true
	if f.Blocks == nil {
		r.add("call of %s", nameOf(f))
		return
	}
	kinds := map[ssa.Value]kind{}
	for at, k := range args {
		r.follow(kinds, f.Params[at], k)
	}
	for _, b := range f.Blocks {
		for _, i := range b.Instrs {
			if call, ok := i.(*ssa.Call); ok && isGetExtension(call, kinds) && r.mayVary(call.Call.Args[1]) {
				r.follow(kinds, call, oneExtension)
			}
		}
	}
	for _, b := range f.Blocks {
		for _, i := range b.Instrs {
			r.instruction(kinds, f, i)
		}
	}
}

// isGetExtension tells whether a call asks a certificate for an extension by its identifier.
func isGetExtension(i *ssa.Call, kinds map[ssa.Value]kind) bool {
	callee := i.Call.StaticCallee()
	return callee != nil && nameOf(callee) == zlintUtil+".GetExtFromCert" && kinds[i.Call.Args[0]] == wholeCertificate
}

// follow marks a value as of a kind, and what is made of it, as far as that is still followed.
func (r *reading) follow(kinds map[ssa.Value]kind, v ssa.Value, k kind) {
	if k == "" || kinds[v] == k {
		return
	}
	if kinds[v] != "" {
		r.add("a mixture of %s and %s", kinds[v], k)
		return
	}
	kinds[v] = k
	for _, i := range *v.Referrers() {
		switch i := i.(type) {
		case *ssa.DebugRef, *ssa.Call: // calls are looked at when every kind is known
		case *ssa.Phi:
			r.follow(kinds, i, k)
		case *ssa.ChangeType:
			r.follow(kinds, i, k)
		case *ssa.BinOp:
			if !isNil(i.X) && !isNil(i.Y) {
				r.add("comparison of a whole %s", k)
			}
		case *ssa.FieldAddr:
			r.field(kinds, v, k, i)
		case *ssa.Field:
			name := i.X.Type().Underlying().(*types.Struct).Field(i.Field).Name()
			if k != oneExtension || name == "Value" && !r.isOfShape(v, i) {
				r.add("%s.%s", k, name)
			}
		case *ssa.UnOp:
			switch {
			case i.Op == token.MUL && strings.HasPrefix(string(k), string(pointerTo)):
				r.follow(kinds, i, k[len(pointerTo):])
			case i.Op == token.MUL && k == oneExtension:
				r.follow(kinds, i, k)
			case i.Op == token.MUL && k == subjectName:
				r.reads |= aSubject
			default:
				r.add("load of a whole %s", k)
			}
		case *ssa.IndexAddr:
			if k == extensionList && i.X == v {
				r.follow(kinds, i, oneExtension)
			} else {
				r.add("index of %s", k)
			}
		case *ssa.Store:
			if target, ok := i.Addr.(*ssa.Alloc); ok && i.Val == v && k == oneExtension && isStruct(v.Type()) {
				r.follow(kinds, target, oneExtension)
			} else if i.Addr != v || k != oneExtension || !local(v) {
				r.add("store of %s", k)
			}
		case *ssa.TypeAssert:
			if k != keyOfUnknownType || !i.CommaOk {
				r.add("assertion on %s", k)
			} else if slices.ContainsFunc(*i.Referrers(), func(i ssa.Instruction) bool {
				e, ok := i.(*ssa.Extract)
				return !ok || e.Index == 0 && len(*e.Referrers()) > 0
			}) {
				r.add("certificate.PublicKey")
			}
		default:
			r.add("%T of %s", i, k)
		}
	}
}

// field looks at the taking of a field's address.
func (r *reading) field(kinds map[ssa.Value]kind, v ssa.Value, k kind, i *ssa.FieldAddr) {
	name := i.X.Type().Underlying().(*types.Pointer).Elem().Underlying().(*types.Struct).Field(i.Field).Name()
	switch {
	case k == oneExtension && (name != "Value" || r.isOfShape(v, i)):
	case k == subjectName && slices.Contains(attributeFields, name):
		r.reads |= otherAttributes
	case k == subjectName && name == "CommonName" && onlyPresence(i):
	case k == subjectName:
		r.reads |= aSubject
	case k != wholeCertificate:
		r.add("%s.%s", k, name)
	case name == "Extensions":
		r.follow(kinds, i, pointerTo+extensionList)
	case name == "PublicKey":
		r.follow(kinds, i, pointerTo+keyOfUnknownType)
	case name == "Subject":
		r.follow(kinds, i, subjectName)
	case slices.Contains(shapeFields, name):
	case facetFields[name] != 0 && onlyPresence(i):
	case facetFields[name] != 0:
		r.reads |= facetFields[name]
	default:
		r.add("%s.%s", k, name)
	}
}

// onlyPresence tells whether a field is read for no more than whether it is empty.
func onlyPresence(field *ssa.FieldAddr) bool {
	switch of := field.Type().Underlying().(*types.Pointer).Elem().Underlying().(type) {
	case *types.Slice:
	case *types.Basic:
		if of.Kind() != types.String {
			return false
		}
	default:
		return false
	}
	return all[*ssa.UnOp](field, func(load *ssa.UnOp) bool {
		return all[*ssa.BinOp](load, isComparison) || all[*ssa.Call](load, func(call *ssa.Call) bool {
			b, ok := call.Call.Value.(*ssa.Builtin)
			return ok && b.Name() == "len" && all[*ssa.BinOp](call, isComparison)
		})
	})
}

// isComparison tells whether an operation compares with nothing: is it, or is it more?
func isComparison(i *ssa.BinOp) bool {
	nothing, ok := i.Y.(*ssa.Const)
	if !ok || nothing.Value != nil && nothing.Value.ExactString() != "0" && nothing.Value.ExactString() != `""` {
		return false
	}
	return i.Op == token.EQL || i.Op == token.NEQ || i.Op == token.GTR && nothing.Value != nil && nothing.Value.Kind() == constant.Int
}

// all tells whether every use of a value is an instruction of one kind, of which something holds.
func all[T ssa.Instruction](v ssa.Value, holds func(T) bool) bool {
	return !slices.ContainsFunc(*v.Referrers(), func(i ssa.Instruction) bool {
		one, ok := i.(T)
		return !ok || !holds(one)
	})
}

func isNil(v ssa.Value) bool {
	c, ok := v.(*ssa.Const)
	return ok && c.IsNil()
}

func isStruct(t types.Type) bool {
	_, ok := t.Underlying().(*types.Struct)
	return ok
}

// instruction looks at one for what would make its function more than one of its arguments.
func (r *reading) instruction(kinds map[ssa.Value]kind, f *ssa.Function, i ssa.Instruction) {
	var callee ssa.Value
	if call, ok := i.(*ssa.Call); ok {
		callee = call.Call.Value
	}
	for _, o := range i.Operands(nil) {
		switch o := (*o).(type) {
		case *ssa.Global:
			if why, bad := r.unsteady[o]; bad {
				r.add("variable %s: %s", o, why)
			} else if !r.knows(o.Pkg) {
				r.add("variable %s of a package that is not followed", o)
			}
		case *ssa.Function:
			if o != callee && !isTrusted(o) {
				r.visit(o, nil)
			}
		}
	}
	switch i := i.(type) {
	case *ssa.Store:
		if !local(i.Addr) {
			r.add("store in %s", f)
		}
	case *ssa.MapUpdate:
		if !local(i.Map) {
			r.add("store to a map in %s", f)
		}
	case *ssa.Call:
		r.call(kinds, f, i)
	case *ssa.UnOp:
		if i.Op == token.ARROW {
			r.add("receive in %s", f)
		}
	case *ssa.Range:
		if _, isMap := i.X.Type().Underlying().(*types.Map); isMap {
			r.add("the order of a map in %s", f)
		}
	case *ssa.Convert:
		if isUnsafe(i.Type()) || isUnsafe(i.X.Type()) {
			r.add("unsafe in %s", f)
		}
	case *ssa.Alloc, *ssa.BinOp, *ssa.ChangeInterface, *ssa.ChangeType, *ssa.DebugRef, *ssa.Extract, *ssa.Field, *ssa.FieldAddr, *ssa.If,
		*ssa.Index, *ssa.IndexAddr, *ssa.Jump, *ssa.Lookup, *ssa.MakeClosure, *ssa.MakeInterface, *ssa.MakeMap, *ssa.MakeSlice, *ssa.Next,
		*ssa.Panic, *ssa.Phi, *ssa.Return, *ssa.Slice, *ssa.TypeAssert:
	default:
		r.add("%T in %s", i, f)
	}
}

func isUnsafe(t types.Type) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Kind() == types.UnsafePointer
}

func (r *reading) knows(p *ssa.Package) bool { return p != nil && r.built[p] }

func (r *reading) call(kinds map[ssa.Value]kind, f *ssa.Function, i *ssa.Call) {
	given := make([]kind, len(i.Call.Args))
	followed := false
	for at, arg := range i.Call.Args {
		given[at] = kinds[arg]
		followed = followed || given[at] != ""
	}
	callee := i.Call.StaticCallee()
	if b, ok := i.Call.Value.(*ssa.Builtin); ok {
		switch b.Name() {
		case "len", "cap":
			if followed && given[0] != extensionList {
				r.add("%s of %s", b.Name(), given[0])
			}
		case "append", "copy", "delete", "clear":
			if followed || !local(i.Call.Args[0]) {
				r.add("%s in %s", b.Name(), f)
			}
		case "min", "max", "real", "imag", "complex", "ssa:wrapnilchk":
			if followed {
				r.add("%s of %s", b.Name(), given)
			}
		default:
			r.add("call of %s", b.Name())
		}
		return
	}
	if callee == nil {
		if i.Call.IsInvoke() && i.Call.Method.FullName() == "(error).Error" && kinds[i.Call.Value] == "" {
			return
		}
		r.add("call of %s, unknown until it runs", i.Call.String())
		return
	}
	name := nameOf(callee)
	writes, known := trusted[name]
	switch {
	case isGetExtension(i, kinds): // followed already
	case name == zlintUtil+".IsExtInCert" && given[0] == wholeCertificate: // whether there is one is the shape's
	case name == zlintUtil+".HasEmailSAN" && given[0] == wholeCertificate: // is asked for the shape, too
	case name == zlintUtil+".TypeInName" && given[0] == subjectName: // the type of a common name is known
		r.reads |= otherAttributes
	case known && followed:
		r.add("%s of %s", name, given)
	case known && slices.ContainsFunc(writes, func(at int) bool { return !local(i.Call.Args[at]) }):
		r.add("%s into memory of others in %s", name, f)
	case !known:
		r.visit(callee, given)
	}
}

// mayVary tells whether the value of an extension may differ between certificates of one shape, given the identifier asked for.
func (r *reading) mayVary(id ssa.Value) bool {
	load, ok := id.(*ssa.UnOp)
	if !ok {
		return true
	}
	g, ok := load.X.(*ssa.Global)
	if !ok || r.unsteady[g] != "" {
		return true
	}
	varies, known := r.varying[g]
	return !known || varies
}

// isOfShape tells whether an extension is used only where it was compared to an identifier, by the method Equal, and is one of those whose
// value does not vary.
func (r *reading) isOfShape(extension ssa.Value, use ssa.Instruction) bool {
	var set ssa.Instruction // what makes a variable this extension
	for _, i := range *extension.Referrers() {
		if store, ok := i.(*ssa.Store); ok && store.Addr == extension {
			if set != nil {
				return false
			}
			set = store
		}
	}
	for _, i := range *extension.Referrers() {
		field, ok := i.(*ssa.FieldAddr)
		if !ok {
			continue
		}
		for _, i := range *field.Referrers() {
			load, ok := i.(*ssa.UnOp)
			if !ok || !isIdentifier(load.Type()) || set != nil && !before(set, load) {
				continue
			}
			for _, i := range *load.Referrers() {
				call, ok := i.(*ssa.Call)
				if !ok || call.Call.StaticCallee() == nil || call.Call.StaticCallee().Name() != "Equal" || call.Call.Args[0] != load ||
					r.mayVary(call.Call.Args[1]) {
					continue
				}
				if last, ok := call.Block().Instrs[len(call.Block().Instrs)-1].(*ssa.If); ok && last.Cond == call && load.Block() == call.Block() &&
					len(call.Block().Succs[0].Preds) == 1 && call.Block().Succs[0].Dominates(use.Block()) {
					return true
				}
			}
		}
	}
	return false
}

// before tells whether an instruction has always run before another.
func before(a, b ssa.Instruction) bool {
	if a.Block() == b.Block() {
		return slices.Index(a.Block().Instrs, a) < slices.Index(b.Block().Instrs, b)
	}
	return a.Block().Dominates(b.Block())
}

// nameOf is the full name of a function, of a generic one without its types.
func nameOf(f *ssa.Function) string {
	if f.Origin() != nil {
		f = f.Origin()
	}
	return f.String()
}

// readsOf says what decides whether a lint applies, and what decides its verdict. A lint is made by a function, and says by two methods
// whether it applies and what it finds; before them the framework asks, by the lint's source, what the certificate is for.
func (a *analysis) readsOf(l *lint.CertificateLint) (applies, verdict facets, why []string) {
	instance := l.Lint()
	r := &reading{analysis: a, visited: map[string]bool{}, why: map[string]bool{}}
	r.enter(sourceName(runtime.FuncForPC(reflect.ValueOf(l.Lint).Pointer()).Name()), nil)
	if !l.OverrideFrameworkFilter {
		r.filter(l.Source)
	}
	r.method(instance, "CheckApplies")
	applies = r.reads
	r.method(instance, "Execute")
	return applies, r.reads, slices.Sorted(maps.Keys(r.why))
}

// filter looks at what lint.CertificateLint asks of a certificate before it runs a lint of a source.
func (r *reading) filter(source lint.LintSource) {
	switch source {
	case lint.CABFBaselineRequirements:
		r.enter(zlintUtil+".IsServerAuthCert", []kind{wholeCertificate})
	case lint.CABFSMIMEBaselineRequirements:
		r.enter(zlintUtil+".IsEmailProtectionCert", []kind{wholeCertificate})
	case lint.CABFCSBaselineRequirements:
		r.enter(zlintUtil+".IsCodeSigning", nil) // of PolicyIdentifiers
	}
}

func (r *reading) method(instance any, name string) {
	of, format := reflect.TypeOf(instance), "(%s.%s).%s"
	if of.Kind() == reflect.Pointer {
		of, format = of.Elem(), "(*%s.%s).%s"
	}
	r.enter(fmt.Sprintf(format, of.PkgPath(), of.Name(), name), []kind{"", wholeCertificate})
}

// sourceName is the name that go/ssa gives to what the compiler calls init.0.func1: the first function literal in the first init.
func sourceName(compiled string) string {
	parts := literalInInit.FindStringSubmatch(compiled)
	if parts == nil {
		return compiled
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil {
		return compiled
	}
	return fmt.Sprintf("%s.init#%d$%s", parts[1], n+1, parts[3])
}

var literalInInit = regexp.MustCompile(`^(.*)\.init\.([0-9]+)\.func([0-9]+)$`)

// enter visits a function by its name.
func (r *reading) enter(name string, args []kind) {
	f := r.functions[name]
	if f == nil {
		r.add("no code of %s", name)
		return
	}
	r.visit(f, args)
}
