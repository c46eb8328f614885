package registry_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// A history that is not what was written is Corrupt to who reads it and to who would add to it: whatever bit is turned, whatever line is gone.
func TestAChangedHistoryIsFound(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	for _, move := range [][2]string{{a, ""}, {b, a}, {a, b}} {
		if err := r.SetAlias(ctx, "late", registry.Champion, move[0], move[1], ""); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(r.Dir(), "models", "late")
	path, end := filepath.Join(dir, "history.jsonl"), filepath.Join(dir, "history.end")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := os.ReadFile(end)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(bytes.TrimSuffix(whole, []byte("\n")), []byte("\n"))
	if len(lines) != 5 {
		t.Fatalf("%d lines", len(lines))
	}
	spoilt := map[string][]byte{
		"empty": nil, "without the last": bytes.Join(lines[:4], nil), "without the second": bytes.Join([][]byte{lines[0], lines[2], lines[3], lines[4], []byte("\n")}, nil),
		"the first alone": lines[0], "two changed places": bytes.Join([][]byte{lines[0], lines[1], lines[3], lines[2], lines[4], []byte("\n")}, nil),
		"a line of another program": bytes.Join([][]byte{lines[0], regexp.MustCompile(`,"sum":"\w+"`).ReplaceAll(lines[1], nil), lines[2], lines[3], lines[4], []byte("\n")}, nil),
	}
	for i := range whole {
		for _, bit := range []byte{1, 32} {
			turned := bytes.Clone(whole)
			turned[i] ^= bit
			spoilt[string(turned)] = turned
		}
	}
	for name, content := range spoilt {
		overwrite(t, path, content)
		if _, err := r.History("late"); failure.Of(err) != failure.Corrupt {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := r.SetAlias(ctx, "late", registry.Champion, b, a, ""); failure.Of(err) != failure.Corrupt {
		t.Errorf("adding to it: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := r.History("late"); failure.Of(err) != failure.Corrupt {
		t.Errorf("without the file: %v", err)
	}
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "{}", `{"lines":5,"sum":"0"}`} {
		overwrite(t, end, []byte(content))
		if _, err := r.History("late"); failure.Of(err) != failure.Corrupt {
			t.Errorf("an end of %q: %v", content, err)
		}
	}
	overwrite(t, end, ended)
	if err := r.SetAlias(ctx, "late", registry.Champion, b, a, ""); err != nil {
		t.Error(err)
	}

	// A process died before it wrote the end, which is that of before.
	overwrite(t, end, ended)
	if err := r.SetAlias(ctx, "late", registry.Champion, a, b, ""); err != nil {
		t.Error(err)
	}
	if h, err := r.History("late"); err != nil || len(h) != 7 {
		t.Errorf("%d entries, %v", len(h), err)
	}
}

// Where the end cannot be written, what the lines say has happened all the same.
func TestAnEndLeftBehind(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	tmp := filepath.Join(r.Dir(), "tmp")
	if err := os.Rename(tmp, tmp+".away"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetAlias(ctx, "late", registry.Champion, a, "", ""); err != nil {
		t.Fatal(err)
	}
	if d, _, err := r.Alias("late", registry.Champion); d != a || err != nil {
		t.Errorf("champion is %s, %v", d, err)
	}
	if err := os.Rename(tmp+".away", tmp); err != nil {
		t.Fatal(err)
	}
	if err := r.SetAlias(ctx, "late", registry.Champion, b, a, ""); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(r.Dir(), "models", "late", "history.jsonl"), nil)
	_, err := r.History("late")
	wantKind(t, err, failure.Corrupt)
}

// A history of before there were sums is read and added to; then its lines are held, too.
func TestAHistoryWithoutSums(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	dir := filepath.Join(r.Dir(), "models", "late")
	path := filepath.Join(dir, "history.jsonl")
	summed, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, regexp.MustCompile(`,"sum":"\w+"`).ReplaceAll(summed, nil))
	if err := os.Remove(filepath.Join(dir, "history.end")); err != nil {
		t.Fatal(err)
	}
	if h, err := r.History("late"); err != nil || len(h) != 2 {
		t.Fatalf("%+v, %v", h, err)
	}
	if err := r.SetAlias(ctx, "late", registry.Champion, b, "", ""); err != nil {
		t.Fatal(err)
	}
	if d, _, err := r.Alias("late", registry.Champion); d != b || err != nil {
		t.Errorf("champion is %s, %v", d, err)
	}
	now, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, bytes.Replace(now, []byte(a), []byte(b), 1))
	_, err = r.History("late")
	wantKind(t, err, failure.Corrupt)
}
