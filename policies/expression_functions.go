package policies

import (
	"net/netip"
	"net/url"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"golang.org/x/net/publicsuffix"
)

// function is one that expressions have beside those of CEL: of a string, with at most one further string.
type function struct {
	name   string
	result *cel.Type
	unary  func(string) ref.Val         // s.name()
	binary func(string, string) ref.Val // s.name(other)
	// literal says what is wrong with a second argument that is written out; nil where anything is right.
	literal func(string) string
}

// functions are listed, with their meaning, in docs/profiles.md.
func functions() []function {
	return []function{
		{name: "isUnder", result: cel.BoolType, binary: func(name, domain string) ref.Val {
			domain = strings.TrimPrefix(domain, ".")
			return types.Bool(domain != "" && within(withoutWildcard(name), domain))
		}, literal: func(domain string) string {
			if problem, _ := dnsProblem(domain); problem != "" || strings.Contains(domain, "*") {
				return quote(domain) + " is not a domain name in lower case"
			}
			return ""
		}},
		{name: "isWildcard", result: cel.BoolType, unary: func(name string) ref.Val { return types.Bool(strings.HasPrefix(name, "*.")) }},
		{name: "labels", result: cel.ListType(cel.StringType), unary: func(name string) ref.Val {
			if name == "" {
				return types.NewStringList(types.DefaultTypeAdapter, nil)
			}
			return types.NewStringList(types.DefaultTypeAdapter, strings.Split(name, "."))
		}},
		{name: "publicSuffix", result: cel.StringType, unary: func(name string) ref.Val {
			suffix, _ := publicsuffix.PublicSuffix(withoutWildcard(name))
			return types.String(suffix)
		}},
		{name: "registrableDomain", result: cel.StringType, unary: func(name string) ref.Val {
			domain, err := publicsuffix.EffectiveTLDPlusOne(withoutWildcard(name))
			if err != nil {
				return types.String("")
			}
			return types.String(domain)
		}},
		{name: "isPublicName", result: cel.BoolType, unary: func(name string) ref.Val {
			problem, _ := dnsProblem(strings.ToLower(name))
			return types.Bool(problem == "" && publicProblem(strings.ToLower(name)) == "")
		}},
		{name: "host", result: cel.StringType, unary: func(s string) ref.Val { return types.String(hostOf(s)) }},
		{name: "inCIDR", result: cel.BoolType, binary: func(address, cidr string) ref.Val {
			a, err := netip.ParseAddr(address)
			if err != nil {
				return types.NewErr("%s is not an IP address", quote(address))
			}
			p, err := netip.ParsePrefix(cidr)
			if err != nil {
				return types.NewErr("%s is not a CIDR", quote(cidr))
			}
			return types.Bool(p.Contains(a))
		}, literal: func(cidr string) string {
			if p, err := netip.ParsePrefix(cidr); err != nil || p != p.Masked() {
				return quote(cidr) + " is not a CIDR with its host bits zero"
			}
			return ""
		}},
		{name: "isReservedIP", result: cel.BoolType, unary: func(address string) ref.Val {
			a, err := netip.ParseAddr(address)
			if err != nil {
				return types.NewErr("%s is not an IP address", quote(address))
			}
			return types.Bool(reservedAddress(a))
		}},
		{name: "oid", result: cel.StringType, unary: func(name string) ref.Val {
			for _, table := range [][]named{extKeyUsages, extensions, judgedExtensions, requestAttributes} {
				for _, n := range table {
					if n.name == name {
						return types.String(n.oid.String())
					}
				}
			}
			if a, ok := attributeByName(name); ok {
				return types.String(a.oid.String())
			}
			if oid, err := parseOID(name); err == nil {
				return types.String(oid.String())
			}
			return types.NewErr("%s is neither a known name nor an object identifier", quote(name))
		}},
		{name: "isOIDUnder", result: cel.BoolType, binary: func(oid, arc string) ref.Val {
			return types.Bool(arc != "" && (oid == arc || strings.HasPrefix(oid, arc+".")))
		}, literal: func(arc string) string {
			if _, err := parseOID(arc); err != nil {
				return err.Error()
			}
			return ""
		}},
	}
}

// withoutWildcard is a DNS name without the wildcard in front.
func withoutWildcard(name string) string { return strings.TrimPrefix(strings.ToLower(name), "*.") }

// hostOf is the host of a URI, or the domain of a mailbox; empty where there is neither.
func hostOf(s string) string {
	if u, err := url.Parse(s); err == nil && u.Host != "" {
		return strings.ToLower(u.Hostname())
	}
	if _, domain, ok := strings.Cut(s, "@"); ok && !strings.Contains(s, ":") {
		return strings.ToLower(domain)
	}
	return ""
}

// option declares the function to CEL.
func (f function) option() cel.EnvOption {
	if f.unary != nil {
		return cel.Function(f.name, cel.MemberOverload("string_"+f.name, []*cel.Type{cel.StringType}, f.result,
			cel.UnaryBinding(func(v ref.Val) ref.Val {
				s, ok := v.(types.String)
				if !ok {
					return types.MaybeNoSuchOverloadErr(v)
				}
				return f.unary(string(s))
			})))
	}
	return cel.Function(f.name, cel.MemberOverload("string_"+f.name+"_string", []*cel.Type{cel.StringType, cel.StringType}, f.result,
		cel.BinaryBinding(func(v, w ref.Val) ref.Val {
			s, ok := v.(types.String)
			t, too := w.(types.String)
			if !ok || !too {
				return types.MaybeNoSuchOverloadErr(w)
			}
			return f.binary(string(s), string(t))
		})))
}
