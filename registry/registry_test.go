package registry_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

func open(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.TempDir(), registry.WithClock(clock.Fixed(time.UnixMilli(1_000))))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *registry.Registry, m registry.Manifest, content string) string {
	t.Helper()
	digest, err := r.Put(t.Context(), m, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

func wantKind(t *testing.T, err error, kind failure.Kind) {
	t.Helper()
	if err == nil || failure.Of(err) != kind {
		t.Errorf("error is %v (%v), want one of kind %v", err, failure.Of(err), kind)
	}
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestAnArtefactIsAddressedByItsContent(t *testing.T) {
	r := open(t)
	a := put(t, r, registry.Manifest{Kind: registry.KindFeatures, Name: "late"}, "one")
	b := put(t, r, registry.Manifest{Kind: registry.KindFeatures, Name: "late"}, "two")
	if a == b {
		t.Fatal("different contents have one digest")
	}
	refs := []registry.Ref{{Role: "x", Digest: a}, {Role: "a", Digest: b}}
	m := registry.Manifest{Kind: registry.KindDataset, Name: "late", Inputs: refs, Annotations: map[string]string{"b": "1", "a": "<2>"}}
	first := put(t, r, m, "rows")
	m.Inputs = []registry.Ref{refs[1], refs[0]}
	if again := put(t, open(t), registry.Manifest{Kind: registry.KindFeatures, Name: "late"}, "one"); again != a {
		t.Errorf("another registry gives %s to what has %s here", again, a)
	}
	if second := put(t, r, m, "rows"); second != first {
		t.Errorf("the order of inputs changes the digest: %s and %s", first, second)
	}
	// What the digest must be, written out.
	canonical := fmt.Sprintf(`{"kind":"dataset","name":"late","media_type":"","content":"%s","size":4,`+
		`"inputs":[{"role":"a","digest":"%s"},{"role":"x","digest":"%s"}],"annotations":{"a":"<2>","b":"1"}}`, sha("rows"), b, a)
	if first != sha(canonical) {
		t.Errorf("digest is %s, want that of %s", first, canonical)
	}
	got, content, err := r.Read(first)
	if err != nil || string(content) != "rows" || got.Content != sha("rows") || got.Size != 4 {
		t.Errorf("read %q, %+v, %v", content, got, err)
	}
}

func TestAManifestWithoutContent(t *testing.T) {
	r := open(t)
	digest, err := r.Put(t.Context(), registry.Manifest{Kind: registry.KindFeatures, Files: []registry.Ref{{Role: "f", Digest: sha("x")}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m, b, err := r.Read(digest); err != nil || len(b) != 0 || m.Content != "" {
		t.Errorf("read %q, %+v, %v", b, m, err)
	}
}

func TestPutRefuses(t *testing.T) {
	r := open(t)
	_, err := r.Put(t.Context(), registry.Manifest{Inputs: []registry.Ref{{Role: "dataset", Digest: sha("nowhere")}}}, strings.NewReader(""))
	wantKind(t, err, failure.NotFound)
	_, err = r.Put(t.Context(), registry.Manifest{Content: sha("other")}, strings.NewReader("this"))
	wantKind(t, err, failure.Corrupt)
	_, err = r.Put(t.Context(), registry.Manifest{Inputs: []registry.Ref{{Role: "dataset", Digest: "sha256:../../etc/passwd"}}}, nil)
	wantKind(t, err, failure.BadRequest)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = r.Put(ended, registry.Manifest{}, strings.NewReader("x")); err == nil {
		t.Error("put goes on after its context has ended")
	}
	if left, _ := filepath.Glob(filepath.Join(r.Dir(), "tmp", "*")); len(left) != 0 {
		t.Errorf("refused content was left behind: %v", left)
	}
}

func TestRottenBytesAreFound(t *testing.T) {
	r := open(t)
	digest := put(t, r, registry.Manifest{Kind: registry.KindModel}, strings.Repeat("tree", 10_000))
	blob := stored(t, r, "blobs/sha256/*")
	for name, rot := range map[string]func([]byte) []byte{
		"a bit":     func(b []byte) []byte { b[20_000] ^= 1; return b },
		"shorter":   func(b []byte) []byte { return b[:len(b)-1] },
		"longer":    func(b []byte) []byte { return append(b, 'x') },
		"destroyed": func([]byte) []byte { return nil },
	} {
		whole, err := os.ReadFile(blob)
		if err != nil {
			t.Fatal(err)
		}
		overwrite(t, blob, rot([]byte(string(whole))))
		_, _, err = r.Read(digest)
		t.Log(name)
		wantKind(t, err, failure.Corrupt)
		// Putting the content again mends it.
		put(t, r, registry.Manifest{Kind: registry.KindModel}, strings.Repeat("tree", 10_000))
		if _, _, err := r.Read(digest); err != nil {
			t.Errorf("%s: not mended: %v", name, err)
		}
	}
	manifest := stored(t, r, "manifests/sha256/*/*")
	overwrite(t, manifest, []byte(`{"kind":"model"}`))
	_, _, err := r.Get(digest)
	wantKind(t, err, failure.Corrupt)
	_, err = r.Find(digest[:12])
	wantKind(t, err, failure.Corrupt)
	_, _, err = r.Get(sha("nothing"))
	wantKind(t, err, failure.NotFound)
}

// stored is the one file of the registry that a pattern matches.
func stored(t *testing.T, r *registry.Registry, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(r.Dir(), filepath.FromSlash(pattern)))
	if err != nil || len(paths) != 1 {
		t.Fatalf("%s: %v, %v", pattern, paths, err)
	}
	return paths[0]
}

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestContentStillBeingReadIsNotBelieved(t *testing.T) {
	r := open(t)
	digest := put(t, r, registry.Manifest{Kind: registry.KindModel}, "abcdef")
	overwrite(t, stored(t, r, "blobs/sha256/*"), []byte("abcdeX"))
	_, content, err := r.Get(digest)
	if err != nil {
		t.Fatal(err)
	}
	defer content.Close()
	_, err = io.ReadAll(content)
	wantKind(t, err, failure.Corrupt)
}

func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	r := open(t)
	orphan := filepath.Join(r.Dir(), "tmp", "put-orphan")
	if err := os.WriteFile(orphan, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A put that is under way is left alone by another process that opens the folder.
	source, sink := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := r.Put(context.WithoutCancel(t.Context()), registry.Manifest{Kind: registry.KindModel}, source)
		done <- err
	}()
	if _, err := sink.Write([]byte("first half, ")); err != nil { // returns when Put has read it: the file is locked
		t.Fatal(err)
	}
	if _, err := registry.Open(r.Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(orphan); !os.IsNotExist(err) {
		t.Errorf("the orphan is still there: %v", err)
	}
	_, _ = sink.Write([]byte("second half"))
	_ = sink.Close()
	if err := <-done; err != nil {
		t.Errorf("the put that was under way: %v", err)
	}
}

func TestLineageBothWays(t *testing.T) {
	r := open(t)
	dataset := put(t, r, registry.Manifest{Kind: registry.KindDataset, Name: "d"}, "d")
	baseline := put(t, r, registry.Manifest{Kind: registry.KindBaseline, Inputs: []registry.Ref{{Role: "dataset", Digest: dataset}}}, "b")
	model := put(t, r, registry.Manifest{Kind: registry.KindModel, Inputs: []registry.Ref{
		{Role: "dataset", Digest: dataset}, {Role: "baseline", Digest: baseline},
	}}, "m")
	put(t, r, registry.Manifest{Kind: registry.KindDataset, Name: "unrelated"}, "u")

	ups, _, err := r.Lineage(model)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := shape(ups), "model(baseline(dataset) dataset)"; got != want {
		t.Errorf("up: %s, want %s", got, want)
	}
	_, downs, err := r.Lineage(dataset)
	if err != nil {
		t.Fatal(err)
	}
	if got := shape(downs); got != "dataset(baseline(model) model)" && got != "dataset(model baseline(model))" {
		t.Errorf("down: %s", got)
	}
	if found, err := r.Find(model[len("sha256:"):20]); err != nil || found != model {
		t.Errorf("found %s, %v", found, err)
	}
	_, err = r.Find("")
	wantKind(t, err, failure.BadRequest)
	if all, err := r.Artefacts(registry.KindDataset); err != nil || len(all) != 2 {
		t.Errorf("%d datasets, %v", len(all), err)
	}
}

func shape(n *registry.Node) string {
	var next []string
	for _, c := range n.Next {
		next = append(next, shape(c))
	}
	if len(next) == 0 {
		return n.Manifest.Kind
	}
	return n.Manifest.Kind + "(" + strings.Join(next, " ") + ")"
}

func version(t *testing.T, r *registry.Registry, content string) string {
	t.Helper()
	digest := put(t, r, registry.Manifest{Kind: registry.KindModel, Name: "late"}, content)
	if _, err := r.AddVersion("late", digest); err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestVersionsAreNumberedOnce(t *testing.T) {
	r := open(t)
	a, b := version(t, r, "a"), version(t, r, "b")
	if n, err := r.AddVersion("late", a); n != 1 || err != nil {
		t.Errorf("adding a again gives %d, %v", n, err)
	}
	vs, err := r.Versions("late")
	if err != nil || len(vs) != 2 || vs[0] != (registry.Version{Number: 1, Digest: a, At: 1_000}) || vs[1].Digest != b {
		t.Errorf("versions %+v, %v", vs, err)
	}
	_, err = r.AddVersion("late", sha("unknown"))
	wantKind(t, err, failure.NotFound)
	if models, err := r.Models(); err != nil || len(models) != 1 || models[0] != "late" {
		t.Errorf("models %v, %v", models, err)
	}
}

// A version taken over keeps its number: it is found by it, and later ones go on from there.
func TestAVersionTakenOverKeepsItsNumber(t *testing.T) {
	from, r := open(t), open(t)
	a, b := version(t, from, "a"), version(t, from, "b")
	for _, content := range []string{"a", "b", "c"} {
		put(t, r, registry.Manifest{Kind: registry.KindModel, Name: "late"}, content)
	}
	if err := r.AddVersionAs("late", a, 7); err != nil {
		t.Fatal(err)
	}
	if err := r.AddVersionAs("late", a, 7); err != nil {
		t.Errorf("again: %v", err)
	}
	wantKind(t, r.AddVersionAs("late", a, 8), failure.Conflict)
	wantKind(t, r.AddVersionAs("late", b, 6), failure.Conflict)
	wantKind(t, r.AddVersionAs("late", sha("unknown"), 9), failure.NotFound)
	if n, err := r.AddVersion("late", b); n != 8 || err != nil {
		t.Errorf("the next is %d: %v", n, err)
	}
	if err := r.SetAlias(t.Context(), "late", registry.Champion, a, "", ""); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"late@7": a, "late@8": b, "late": a} {
		if v, err := r.Resolve(text); err != nil || v.Digest != want {
			t.Errorf("%s is %+v: %v", text, v, err)
		}
	}
	_, err := r.Resolve("late@1")
	wantKind(t, err, failure.NotFound)
	if reopened, err := registry.Open(r.Dir()); err != nil {
		t.Error(err)
	} else if v, err := reopened.Resolve("late@7"); err != nil || v.Number != 7 {
		t.Errorf("%+v: %v", v, err)
	}
}

func TestAnAliasMovesOnlyFromWhatIsExpected(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	_, _, err := r.Alias("late", registry.Champion)
	wantKind(t, err, failure.NotFound)
	wantKind(t, r.SetAlias(ctx, "late", registry.Champion, a, b, ""), failure.Conflict)
	if err := r.SetAlias(ctx, "late", registry.Champion, a, "", "first"); err != nil {
		t.Fatal(err)
	}
	err = r.SetAlias(ctx, "late", registry.Champion, b, b, "")
	wantKind(t, err, failure.Conflict)
	if want := "the champion is late@1 (" + a + "), not late@2 (" + b + ")"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	err = r.SetAlias(ctx, "late", registry.Champion, b, "", "")
	wantKind(t, err, failure.Conflict)
	if want := "the champion is late@1 (" + a + "), not nothing"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	wantKind(t, r.SetAlias(ctx, "late", registry.Champion, sha("c"), a, ""), failure.NotFound)
	if err := r.SetAlias(ctx, "late", registry.Champion, b, a, "better"); err != nil {
		t.Fatal(err)
	}
	if digest, n, err := r.Alias("late", registry.Champion); digest != b || n != 2 || err != nil {
		t.Errorf("champion is %s, version %d, %v", digest, n, err)
	}
	h, err := r.History("late")
	if err != nil || len(h) != 4 {
		t.Fatalf("history %+v, %v", h, err)
	}
	if last := h[3]; last.Previous != a || last.Digest != b || last.Note != "better" || last.At != 1_000 || last.Kind != registry.EntryAlias {
		t.Errorf("last entry %+v", last)
	}
}

func TestNamesCannotLeaveTheFolder(t *testing.T) {
	r := open(t)
	a := version(t, r, "a")
	for _, name := range []string{"", "../late", "a/b", ".hidden", strings.Repeat("x", 200)} {
		_, err := r.AddVersion(name, a)
		wantKind(t, err, failure.BadRequest)
		_, err = r.History(name)
		wantKind(t, err, failure.BadRequest)
		_, err = r.Claim(name, "first")
		wantKind(t, err, failure.BadRequest)
		wantKind(t, r.SetAlias(t.Context(), "late", name, a, "", ""), failure.BadRequest)
	}
}

func TestRollback(t *testing.T) {
	r, ctx := open(t), t.Context()
	digests := []string{version(t, r, "a"), version(t, r, "b"), version(t, r, "c")}
	champion := ""
	for _, d := range digests {
		if err := r.SetAlias(ctx, "late", registry.Champion, d, champion, ""); err != nil {
			t.Fatal(err)
		}
		champion = d
	}
	_, err := r.Rollback(ctx, "late", registry.Champion, digests[0], "")
	wantKind(t, err, failure.Conflict)
	for _, want := range []string{digests[1], digests[0]} { // further back each time, not to and fro
		e, err := r.Rollback(ctx, "late", registry.Champion, champion, "bad")
		if err != nil || e.Digest != want || e.Previous != champion || e.Kind != registry.EntryRolledBack {
			t.Fatalf("rolled back to %+v, %v; want %s", e, err, want)
		}
		champion = want
	}
	_, err = r.Rollback(ctx, "late", registry.Champion, champion, "")
	wantKind(t, err, failure.NotFound)
}

func TestARunIsConcludedOnce(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	first := registry.Conclusion{Run: "r1", Outcome: json.RawMessage(`{"kind":"promoted"}`), Digest: a, Alias: registry.Champion}
	if err := r.Conclude(ctx, "late", first); err != nil {
		t.Fatal(err)
	}
	wantKind(t, r.Conclude(ctx, "late", registry.Conclusion{Run: "r1", Outcome: json.RawMessage(`{}`)}), failure.Conflict)
	// A run that decided by another champion leaves no trace.
	wantKind(t, r.Conclude(ctx, "late", registry.Conclusion{Run: "r2", Outcome: json.RawMessage(`{}`), Digest: b, Alias: registry.Champion}), failure.Conflict)
	if _, ok, err := r.Concluded("late", "r2"); ok || err != nil {
		t.Errorf("r2 is concluded: %v, %v", ok, err)
	}
	if err := r.Conclude(ctx, "late", registry.Conclusion{Run: "r3", Outcome: json.RawMessage(`{"kind":"refused"}`), Note: "gate auc"}); err != nil {
		t.Fatal(err)
	}
	if kept, ok, err := r.Concluded("late", "r3"); !ok || err != nil || string(kept) != `{"kind":"refused"}` {
		t.Errorf("r3: %s, %v, %v", kept, ok, err)
	}
	if d, _, _ := r.Alias("late", registry.Champion); d != a {
		t.Errorf("champion is %s, want %s", d, a)
	}
	if err := r.Published(ctx, "late", "r1"); err != nil {
		t.Fatal(err)
	}
	if left, err := r.Unpublished("late"); err != nil || len(left) != 1 || left[0].Run != "r3" {
		t.Errorf("unpublished %+v, %v", left, err)
	}
}

func TestATornLineHasNotHappened(t *testing.T) {
	r, ctx := open(t), t.Context()
	a, b := version(t, r, "a"), version(t, r, "b")
	if err := r.SetAlias(ctx, "late", registry.Champion, a, "", ""); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir(), "models", "late", "history.jsonl")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, path, append(whole, `{"at":1,"kind":"alias","alias":"champion","digest":"`+b...))
	if d, _, err := r.Alias("late", registry.Champion); d != a || err != nil {
		t.Errorf("champion is %s, %v", d, err)
	}
	if err := r.SetAlias(ctx, "late", registry.Champion, b, a, ""); err != nil {
		t.Fatal(err)
	}
	if h, err := r.History("late"); err != nil || len(h) != 4 {
		t.Errorf("history %+v, %v", h, err)
	}
	overwrite(t, path, append([]byte("rubbish\n"), whole...))
	_, err = r.History("late")
	wantKind(t, err, failure.Corrupt)
}

func TestOfManyWhoMoveAnAliasOneWins(t *testing.T) {
	r := open(t)
	a := version(t, r, "a")
	var digests []string
	for i := range 16 {
		digests = append(digests, version(t, r, fmt.Sprint(i)))
	}
	if err := r.SetAlias(t.Context(), "late", registry.Champion, a, "", ""); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]error, len(digests))
	for i, d := range digests {
		wg.Go(func() {
			mine, err := registry.Open(r.Dir())
			if err == nil {
				err = mine.SetAlias(t.Context(), "late", registry.Champion, d, a, "")
			}
			results[i] = err
		})
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else {
			wantKind(t, err, failure.Conflict)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d moved the alias", won, len(digests))
	}
}
