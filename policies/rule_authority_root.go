package policies

// authorityRoot holds that a root carries nothing that only a chain above it could give a meaning: no pointers, no extended key usages, no
// policies (BR, section 7.1.2.1.2).
var authorityRoot = rule[*authority]{
	id: "authority.root", source: "BR 7.1.2.1.2",
	check: func(a *authority, f *findings) {
		if !a.Root {
			return
		}
		const hint = "leave it out; it has a meaning in the authorities below"
		if a.CRLURL != "" {
			f.refuse("crl_url", hint, "a root has no CRL distribution point: nobody could revoke it")
		}
		if len(a.IssuerURLs)+len(a.OCSPURLs) > 0 {
			f.refuse("issuer_urls", hint, "a root has no authorityInfoAccess: nothing is above it")
		}
		if len(a.ExtKeyUsage) > 0 {
			f.refuse("ext_key_usage", hint, "a root has no extended key usage")
		}
		if len(a.Policies) > 0 {
			f.refuse("policies", hint, "a root has no certificate policies")
		}
	},
}
