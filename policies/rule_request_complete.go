package policies

import "github.com/chancery-ca/chancery/access"

// requestComplete refuses to decide without the facts that every other rule relies on: whoever forgets to give one gets a refusal
// and not a certificate.
var requestComplete = rule[*evaluation]{
	id: "request.complete", source: "profile", gate: true,
	seen: seenNamespace,
	check: func(e *evaluation, f *findings) {
		if e.CSR == nil || len(e.key.SPKI) == 0 {
			f.refuse("csr", "send a certification request (PKCS#10)", "there is no certification request to decide on")
		}
		if e.Now.IsZero() {
			f.refuse("now", "report this to the operator: it is a fault of the service, not of the request", "the time of the decision is not known")
		}
		if e.Actor.Namespace == "" || e.Namespace.Name == "" ||
			e.Actor.Namespace != access.AllNamespaces && e.Actor.Namespace != e.Namespace.Name {
			f.refuse("namespace", "use a token of the namespace that owns the names", "the requester does not act in the namespace whose names are asked for")
		}
	},
}
