package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// A history is lines of text that a crash, a disk or a hand may change, and every promotion rests on it. So each line ends with the sum of itself and of
// the sum before it, and a file beside the history has the number of lines and the last sum. It is written after the lines: a process that dies in
// between leaves it behind, never ahead.

// restoreHistory is what to do about a history that is not what was written.
const restoreHistory = "the file was changed by other means: restore it from a copy; versions that were pushed can be pulled into a new registry"

// historyEnd is how far a history goes.
type historyEnd struct {
	Lines int    `json:"lines"`
	Sum   string `json:"sum"` // of the last line

	summed bool // some line has had a sum; those of before there were any have none
}

// sumKey begins the last field of a line.
const sumKey = `,"sum":"`

// next is the sum of a line that comes after; summed is false for one that has none.
func (e historyEnd) next(line []byte) (sum string, summed bool) {
	if at := bytes.LastIndex(line, []byte(sumKey)); at >= 0 && len(line) == at+len(sumKey)+2*sha256.Size+len(`"}`) {
		line, summed = line[:at], true
	} else {
		line = bytes.TrimSuffix(line, []byte("}"))
	}
	h := sha256.New()
	_, _ = h.Write([]byte(e.Sum)) // a hash does not fail to be written to
	_, _ = h.Write(line)
	return hex.EncodeToString(h.Sum(nil)), summed
}

// line is the text of an entry, which the history then goes up to.
func (e *historyEnd) line(entry Entry) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(entry); err != nil {
		return nil, err
	}
	line := bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	sum, _ := e.next(line)
	e.Lines, e.Sum, e.summed = e.Lines+1, sum, true
	return append(append(append(bytes.TrimSuffix(line, []byte("}")), sumKey...), sum...), `"}`...), nil
}

func (r *Registry) endPath(model string) string {
	return filepath.Join(r.modelDir(model), "history.end")
}

// readEnd is what the file beside the history says; nothing of a history of before there was one.
func (r *Registry) readEnd(model string) (historyEnd, error) {
	var end historyEnd
	b, err := os.ReadFile(r.endPath(model))
	if errors.Is(err, fs.ErrNotExist) {
		return end, nil
	}
	if err != nil {
		return end, failure.Wrap(failure.Unavailable, model, "reading the end of the history", err)
	}
	if err := json.Unmarshal(b, &end); err != nil || end.Lines < 1 || len(end.Sum) != 2*sha256.Size {
		return end, failure.New(failure.Corrupt, model+"/history.end", "does not say how far the history goes").WithHint("%s", restoreHistory)
	}
	return end, nil
}

// writeEnd does what it can: the lines before it are written, and what they say has happened. An end that is left behind holds those up to it, and the
// next entry writes it anew.
func (r *Registry) writeEnd(model string, end historyEnd) {
	if b, err := json.Marshal(end); err == nil {
		_ = r.putFile(r.endPath(model), append(b, '\n'))
	}
}
