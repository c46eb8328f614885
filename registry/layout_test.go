package registry_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// names lists what index.json calls versions.
func names(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Digest      string            `json:"digest"`
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range index.Manifests {
		if name := m.Annotations["org.opencontainers.image.ref.name"]; name != "" {
			found = append(found, name)
		}
		if _, err := os.Stat(filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(m.Digest, "sha256:"))); err != nil {
			t.Error(err)
		}
	}
	slices.Sort(found)
	return found
}

// A registry from before the layout, with blobs in folders of two digits and no index, is one after it is opened: also when a first attempt had
// moved only some.
func TestAnOldRegistryBecomesALayout(t *testing.T) {
	r := open(t)
	digests := []string{version(t, r, "a"), version(t, r, "b"), version(t, r, "c")}
	root := filepath.Join(r.Dir(), "blobs", "sha256")
	moved := 0
	for _, d := range digests {
		m, err := r.Manifest(d)
		if err != nil {
			t.Fatal(err)
		}
		hex := strings.TrimPrefix(m.Content, "sha256:")
		if moved == 2 { // as an open that was killed would have left it
			break
		}
		if err := os.MkdirAll(filepath.Join(root, hex[:2]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(root, hex), filepath.Join(root, hex[:2], hex)); err != nil {
			t.Fatal(err)
		}
		moved++
	}
	for _, file := range []string{"index.json", "oci-layout"} {
		if err := os.Remove(filepath.Join(r.Dir(), file)); err != nil {
			t.Fatal(err)
		}
	}
	again, err := registry.Open(r.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range digests {
		if _, b, err := again.Read(d); err != nil || string(b) != string(rune('a'+i)) {
			t.Errorf("%s: %q, %v", d, b, err)
		}
	}
	if got := names(t, r.Dir()); !slices.Equal(got, []string{"late-1", "late-2", "late-3"}) {
		t.Errorf("the index has %v", got)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			t.Errorf("the folder %s is still there", e.Name())
		}
	}
}

// The history is the truth: an index that a killed process did not write, or half wrote, is made again.
func TestTheIndexIsMended(t *testing.T) {
	r := open(t)
	version(t, r, "a")
	path := filepath.Join(r.Dir(), "index.json")
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	version(t, r, "b")
	for what, b := range map[string][]byte{"of before": before, "half": before[:len(before)/2], "empty": nil} {
		overwrite(t, path, b)
		if _, err := registry.Open(r.Dir()); err != nil {
			t.Fatal(what, err)
		}
		if got := names(t, r.Dir()); !slices.Equal(got, []string{"late-1", "late-2"}) {
			t.Errorf("%s: the index has %v", what, got)
		}
	}
}

// Many add versions at once: each is in the index once.
func TestVersionsAreIndexedOnce(t *testing.T) {
	r := open(t)
	var digests []string
	for _, content := range strings.Split("abcdefghijklmnop", "") {
		digests = append(digests, put(t, r, registry.Manifest{Kind: registry.KindModel, Name: "late"}, content))
	}
	var wg sync.WaitGroup
	for _, d := range append(digests, digests...) {
		wg.Go(func() {
			mine, err := registry.Open(r.Dir())
			if err == nil {
				_, err = mine.AddVersion("late", d)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, r.Dir()); len(got) != len(digests) || len(slices.Compact(got)) != len(digests) {
		t.Errorf("the index has %v", got)
	}
}

func TestAdoptTakesOnlyManifests(t *testing.T) {
	r := open(t)
	blob := func(content string) string {
		d := sha(content)
		if err := r.PutBlob(t.Context(), d, int64(len(content)), strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	wantKind(t, r.Adopt(sha("nothing")), failure.NotFound)
	wantKind(t, r.Adopt(blob("no JSON")), failure.Corrupt)
	wantKind(t, r.Adopt(blob(`{"kind":"model","name":"late","media_type":"", "space":1}`)), failure.Corrupt)
	wantKind(t, r.Adopt(blob(`{"kind":"model","name":"late","media_type":"","inputs":[{"role":"dataset","digest":"`+sha("x")+`"}]}`)), failure.NotFound)
	without := blob(`{"kind":"dataset","name":"late","media_type":"","content":"` + sha("rows") + `","size":4}`)
	if err := r.Adopt(without); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Manifest(without); err != nil || m.Kind != registry.KindDataset {
		t.Errorf("%+v, %v", m, err)
	}
	_, _, err := r.Read(without)
	wantKind(t, err, failure.NotFound)
	wantKind(t, r.PutBlob(t.Context(), sha("right"), 5, strings.NewReader("wrong")), failure.Corrupt)
	wantKind(t, r.PutBlob(t.Context(), sha("right"), 5, strings.NewReader("right and more")), failure.Corrupt)
	if r.HasBlob(sha("right")) {
		t.Error("what was not right was kept")
	}
}
