package console

import (
	"net/http"
	"slices"

	"github.com/chancery-ca/chancery/access"
)

// home tells people who they are here.
func (v *visits) home(w http.ResponseWriter, r *http.Request, visit *visit) {
	var may []access.Action
	for _, g := range access.Table() {
		if slices.Contains(visit.person().Roles, g.Role) {
			may = append(may, g.Actions...)
		}
	}
	slices.Sort(may)
	v.show(w, r, visit, http.StatusOK, "home", map[string]any{
		"Session": visit.session, "May": slices.Compact(may), "Everywhere": visit.person().Namespace == access.AllNamespaces,
	})
}

// authorities shows the hierarchy, each with its CRL.
func (v *visits) authorities(w http.ResponseWriter, r *http.Request, visit *visit) {
	all, err := v.CA.Authorities(r.Context(), visit.person())
	if err != nil {
		v.failed(w, r, visit, err)
		return
	}
	type row struct {
		Name, Parent, Key, CRL string
		Entries                int
		Number, URL            string
		This, Next             string
	}
	rows := make([]row, len(all))
	for i, a := range all {
		rows[i] = row{Name: a.Name, Parent: a.Parent, Key: "offline", CRL: "none yet", URL: a.CRLURL}
		switch {
		case a.Signing:
			rows[i].Key = "open here"
		case a.Online:
			rows[i].Key = "not open here"
		}
		if crl := a.Current; crl != nil {
			rows[i].CRL, rows[i].Number, rows[i].Entries = "current", crl.Number.String(), crl.Entries
			rows[i].This, rows[i].Next = crl.ThisUpdate.UTC().Format("2006-01-02 15:04 UTC"), crl.NextUpdate.UTC().Format("2006-01-02 15:04 UTC")
			if v.Now().After(crl.NextUpdate) {
				rows[i].CRL = "overdue"
			}
		}
	}
	v.show(w, r, visit, http.StatusOK, "authorities", rows)
}
