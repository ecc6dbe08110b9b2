package policies

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// The limits on expressions. Costs are CEL's: a unit is about one step of evaluation, some 50 ns. What an expression may cost is
// checked twice: estimated for the largest request that the profile allows when the profile is loaded, and counted when it is evaluated.
const (
	maxExpression       = 2000 // characters
	maxExpressionNodes  = 500
	maxExpressionNested = 2 // comprehensions within comprehensions
	maxExpressionCost   = 250_000
	maxRulesCost        = 1_000_000 // of all expressions of a profile together
	maxRegexProgram     = 1000      // instructions
)

// expression is a compiled expression that says true or false.
type expression struct {
	source  string
	program cel.Program
	cost    uint64 // the estimate for the largest request
	// shown are the parts of the variables that it looks at.
	shown []shownPart
}

// shownPart is a part of a variable, such as cert.dns, that an expression looks at.
type shownPart struct {
	path    string
	program cel.Program
}

// language is CEL with the variables and functions of profiles. It is made for a load that needs it, since making it costs more than
// loading a set without expressions.
type language struct {
	make func() (*cel.Env, error)
}

func newLanguage() *language {
	return &language{make: sync.OnceValues(newEnvironment)}
}

func newEnvironment() (*cel.Env, error) {
	value := func(d func(...cel.NativeTypeOption) *cel.NativeTypeDesc, name string) *cel.NativeTypeDesc {
		return d(cel.NativeTypeOption(types.ParseStructTags(true)), cel.NativeTypeAlias(name))
	}
	options := []cel.EnvOption{
		cel.Types(
			value(cel.NativeTypeFor[keyValue], "Key"), value(cel.NativeTypeFor[requestValue], "Request"),
			value(cel.NativeTypeFor[certificateValue], "Certificate"), value(cel.NativeTypeFor[requesterValue], "Requester"),
			value(cel.NativeTypeFor[profileValue], "Profile"),
		),
		cel.Variable(variableCSR, cel.ObjectType("Request")), cel.Variable(variableCert, cel.ObjectType("Certificate")),
		cel.Variable(variableRequester, cel.ObjectType("Requester")), cel.Variable(variableProfile, cel.ObjectType("Profile")),
		cel.Variable(variableNow, cel.TimestampType),
		ext.Strings(), ext.Sets(),
		cel.DefaultUTCTimeZone(true), cel.StrictTimestampParsing(true),
		cel.ParserExpressionSizeLimit(maxExpression), cel.ExpressionNodeLimit(maxExpressionNodes), cel.RegexProgramSizeLimit(maxRegexProgram),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(),
			cel.ValidateHomogeneousAggregateLiterals(), cel.ValidateComprehensionNestingLimit(maxExpressionNested), literals{}),
	}
	for _, f := range functions() {
		options = append(options, f.option())
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("making the language of expressions: %w", err)
	}
	return env, nil
}

// expressionProblem is what is wrong with an expression, and at which of its lines and columns, from 1 on; 0 where it is all of it.
type expressionProblem struct {
	line, column int
	message      string
}

// compile reads an expression and says everything that is wrong with it.
func (l *language) compile(source string, p *Profile) (*expression, []expressionProblem) {
	env, err := l.make()
	if err != nil {
		return nil, []expressionProblem{{message: err.Error()}}
	}
	checked, issues := env.Compile(source)
	if issues.Err() != nil {
		var problems []expressionProblem
		for _, i := range issues.Errors() {
			problems = append(problems, expressionProblem{i.Location.Line(), i.Location.Column() + 1, oneLine(i.Message)})
		}
		return nil, problems
	}
	whole := func(format string, args ...any) (*expression, []expressionProblem) {
		return nil, []expressionProblem{{message: fmt.Sprintf(format, args...)}}
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) {
		return whole("the expression is of type %s: it must say true or false", t)
	}
	estimate, err := env.EstimateCost(checked, sizes{p})
	if err != nil {
		return whole("estimating the cost: %v", err)
	}
	if estimate.Max > maxExpressionCost {
		return whole("the expression may cost %s; %d is the most", costText(estimate.Max), maxExpressionCost)
	}
	program, err := env.Program(checked, cel.CostTracking(sizes{p}), cel.CostLimit(maxExpressionCost))
	if err != nil {
		return whole("%s", oneLine(err.Error()))
	}
	e := &expression{source: source, program: program, cost: estimate.Max}
	for _, path := range looksAt(checked) {
		part, issues := env.Compile(path)
		if issues.Err() != nil {
			continue // the path of a map's entry that only has() may look at
		}
		program, err := env.Program(part, cel.CostLimit(maxExpressionCost))
		if err != nil {
			return whole("%s", oneLine(err.Error()))
		}
		e.shown = append(e.shown, shownPart{path, program})
	}
	return e, nil
}

func costText(units uint64) string {
	if units > 1_000_000_000 {
		return "more than can be bounded"
	}
	return fmt.Sprintf("%d steps with the largest request", units)
}

func oneLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return strings.ToValidUTF8(s, "?")
}

var errNotBool = errors.New("the expression says neither true nor false")

// holds evaluates the expression. An error means that it could not be told; whoever asks must take that for the refusing answer.
func (x *expression) holds(v *variables) (bool, error) {
	out, _, err := x.program.Eval(v)
	if err != nil {
		return false, err
	}
	b, ok := out.(types.Bool)
	if !ok {
		return false, errNotBool
	}
	return bool(b), nil
}

// see shows what the expression looked at.
func (x *expression) see(v *variables) string {
	all := make([]string, 0, len(x.shown))
	for _, part := range x.shown {
		text := "cannot be told"
		if out, _, err := part.program.Eval(v); err == nil {
			text = showValue(out)
		}
		all = append(all, part.path+" = "+text)
	}
	return strings.Join(all, ", ")
}

// looksAt finds the parts of variables in an expression, each once, in order.
func looksAt(checked *cel.Ast) []string {
	var paths []string
	root := ast.NavigateAST(checked.NativeRep())
	for _, e := range ast.MatchDescendants(root, ast.AllMatcher()) {
		path, ok := pathOf(e)
		if !ok {
			continue
		}
		if parent, has := e.Parent(); has && parent.Kind() == ast.SelectKind {
			if _, longer := pathOf(parent); longer {
				continue
			}
		}
		if !slices.Contains(paths, path) && len(paths) < maxListed {
			paths = append(paths, path)
		}
	}
	return paths
}

// pathOf is the path of a part of a variable: a variable, or fields of one.
func pathOf(e ast.Expr) (string, bool) {
	switch e.Kind() {
	case ast.IdentKind:
		switch name := e.AsIdent(); name {
		case variableCSR, variableCert, variableRequester, variableProfile, variableNow:
			return name, true
		}
	case ast.SelectKind:
		s := e.AsSelect()
		if path, ok := pathOf(s.Operand()); ok && !s.IsTestOnly() {
			return path + "." + s.FieldName(), true
		}
	}
	return "", false
}

// literals refuses arguments of functions that are written out and can never be right.
type literals struct{}

func (literals) Name() string { return "chancery.validator.literals" }

// Validate reports arguments that can never be right.
func (literals) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	all := functions()
	for _, e := range ast.MatchDescendants(ast.NavigateAST(a), ast.KindMatcher(ast.CallKind)) {
		call := e.AsCall()
		for _, f := range all {
			if f.name != call.FunctionName() || f.literal == nil || len(call.Args()) != 1 || call.Args()[0].Kind() != ast.LiteralKind {
				continue
			}
			s, ok := call.Args()[0].AsLiteral().(types.String)
			if !ok {
				continue
			}
			if problem := f.literal(string(s)); problem != "" {
				issues.ReportErrorAtID(call.Args()[0].ID(), "%s", problem)
			}
		}
	}
}

// sizes tells CEL how large what a profile lets through can be, and what the functions of profiles cost.
type sizes struct{ p *Profile }

// The most that is expected of what profiles do not bound. More is not wrong: the count at evaluation holds.
const (
	maxGroups    = 200
	maxClaims    = 50
	maxClaim     = 20
	maxClaimText = 200
	maxAsked     = 40 // extensions and attributes of a request
)

// EstimateSize bounds the size of a part of a variable.
func (s sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	most := func(n int) *cost.SizeEstimate { return &cost.SizeEstimate{Max: uint64(n)} } //nolint:gosec // never negative
	path := n.Path()
	if len(path) < 2 {
		return nil
	}
	names := map[string]int{"dns": maxName, "ip": 45, "email": maxMailbox, "uri": maxURI, "names": maxURI}
	item := len(path) > 2 && (path[2] == "@items" || path[2] == "@values")
	switch field := path[1]; field {
	case "dns", "ip", "email", "uri", "names":
		if item {
			return most(names[field])
		}
		return most(s.p.names.max)
	case "groups", "roles":
		if item {
			return most(maxGroupName)
		}
		return most(maxGroups)
	case "attributes":
		return s.attributes(path)
	case "subject":
		if len(path) == 2 {
			return most(len(attributeTypes))
		}
		return most(256)
	case "extensions", "key_usage", "ext_key_usage", "policies", "standards":
		if item {
			return most(maxName)
		}
		return most(maxAsked)
	}
	return most(maxName)
}

func (s sizes) attributes(path []string) *cost.SizeEstimate {
	switch {
	case len(path) == 2:
		return &cost.SizeEstimate{Max: maxClaims}
	case len(path) == 3 && path[0] == variableRequester:
		return &cost.SizeEstimate{Max: maxClaim}
	}
	return &cost.SizeEstimate{Max: maxClaimText}
}

// functionCost is what a function of profiles costs, whatever it is given: the strings it works on are names.
const functionCost = 10

// EstimateCallCost is what a call of a function of profiles costs.
func (s sizes) EstimateCallCost(name, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	for _, f := range functions() {
		if f.name == name {
			size := &cost.SizeEstimate{Max: maxName}
			return &cost.CallEstimate{CostEstimate: cost.Estimate{Min: functionCost, Max: functionCost}, ResultSize: size}
		}
	}
	return nil
}

// CallCost is what a call did cost: for the functions of profiles in proportion to their argument.
func (s sizes) CallCost(name, _ string, args []ref.Val, _ ref.Val) *uint64 {
	for _, f := range functions() {
		if f.name == name && len(args) > 0 {
			spent := uint64(functionCost)
			if text, ok := args[0].(types.String); ok {
				spent += uint64(len(text)) / maxURI * functionCost
			}
			return &spent
		}
	}
	return nil
}
