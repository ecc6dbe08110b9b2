package main

import (
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestCRLsForSubscribersAloneHaveNoAuthoritiesToRevoke holds that an authority whose CRLs are for subscribers alone is neither opened where
// another is below it, nor given one.
func TestCRLsForSubscribersAloneHaveNoAuthoritiesToRevoke(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	const want = "root-1 is the issuer of the authority issuing-1, which they could not revoke: leave out contains: subscribers"
	s.authorities = devIssuer + ", " + devRoot
	for contains, refused := range map[string]bool{"subscribers": true, "authorities": false} {
		s.more = "crls: {authorities: [{name: " + devRoot + ", contains: " + contains + "}]}\n"
		path := s.write("a", s.token.Module)
		// Without its CRLs in the way, the service does not start for the root's being offline.
		if said, serving := s.serves(path); serving || strings.Contains(said, want) != refused {
			t.Errorf("%s: serving %v\n%s", contains, serving, said)
		}
		_, said, code := typed(t, "", "authority", "add", "--config", path, s.dir+"/ceremony/"+devIssuer+".authority.json")
		if strings.Contains(said, want) != refused || (code == 0) == refused {
			t.Errorf("%s: added with %d\n%s", contains, code, said)
		}
	}
	s.authorities = ""
	s.more = "crls: {authorities: [{name: " + devIssuer + ", contains: subscribers}]}\n"
	if said, serving := s.serves(s.write("a", s.token.Module)); !serving {
		t.Errorf("an authority that has none below it: %s", said)
	}
}
