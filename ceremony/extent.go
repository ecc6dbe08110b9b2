package ceremony

import (
	"encoding/base64"
	"fmt"
)

// lineRoom is more than a line of a transcript has besides what it holds in base64.
const lineRoom = 2 << 10

// extent is how many octets a transcript may come to have.
type extent int

// line counts a line that holds so many octets in base64.
func (e *extent) line(octets int) { *e += extent(lineRoom + base64.StdEncoding.EncodedLen(octets)) }

// signature counts what is recorded of one signature: its intent, and what was signed.
func (e *extent) signature(tbs int) {
	e.line(tbs)
	e.line(tbs + lineRoom) // the signature and the names of its algorithm are the rest
}

// readable refuses a transcript that nobody could verify.
func (e extent) readable() error {
	if e <= MaxTranscript {
		return nil
	}
	return fmt.Errorf("the transcript would have some %d MiB, and none of more than %d MiB is read: divide the plan into several; a CRL of more "+
		"than some %d MiB, which stands there twice and in base64, is too long for a ceremony, and the service must make it",
		e>>20, MaxTranscript>>20, MaxTranscript*3/8>>20)
}
