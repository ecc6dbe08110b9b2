package hsm

import (
	"bytes"
	"encoding/asn1"
	"testing"
)

func TestCurveParameters(t *testing.T) {
	for name, want := range map[Algorithm]asn1.ObjectIdentifier{
		ECDSAP256: {1, 2, 840, 10045, 3, 1, 7},
		ECDSAP384: {1, 3, 132, 0, 34},
	} {
		der, err := asn1.Marshal(want)
		if err != nil || !bytes.Equal(der, algorithms[name].parameters) {
			t.Errorf("%s: %x is not %x, %v", name, algorithms[name].parameters, der, err)
		}
	}
}

// Whatever a token answers: at most one algorithm fits, and numbers come back as they went.
func FuzzKeyDescription(f *testing.F) {
	f.Add(ulongs([]uint{0}), bytes.Repeat([]byte{0xff}, 256), []byte{})
	f.Add(ulongs([]uint{3}), []byte{}, algorithms[ECDSAP256].parameters)
	f.Add([]byte{3}, []byte{0}, []byte{6})
	f.Add([]byte(nil), []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, typ, modulus, parameters []byte) {
		fitting := 0
		for _, a := range algorithms {
			if a.keyType == keyType(typ) && a.is(modulus, parameters, 0) {
				fitting++
			}
		}
		if fitting > 1 {
			t.Errorf("%d algorithms fit", fitting)
		}
		if n, ok := ulong(typ); ok && !bytes.Equal(ulongs([]uint{n}), typ) {
			t.Errorf("%x became %d", typ, n)
		}
	})
}
