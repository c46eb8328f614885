package offline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest names the content of the files that a scan with the same options reads, "sha256:" and 64 hex digits, and counts
// their rows. It is made of the checksums in the log and opens no data file.
func (t *Table) Digest(opts ScanOptions) (digest string, rows int64, err error) {
	plan, err := t.plan(opts)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	for _, f := range plan.files {
		fmt.Fprintf(h, "%d %s %d %08x\n", f.partition, f.Path, f.Bytes, f.CRC32C)
		rows += f.Rows
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), rows, nil
}
