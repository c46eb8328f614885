package oci_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	modelpack "github.com/modelpack/model-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/oci"
)

func open(t *testing.T) *registry.Registry {
	t.Helper()
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *registry.Registry, kind, content string, inputs ...registry.Ref) string {
	t.Helper()
	m := registry.Manifest{Kind: kind, Name: "late", MediaType: "application/json", Inputs: inputs}
	digest, err := r.Put(t.Context(), m, strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// trained registers what a training run does.
func trained(t *testing.T, r *registry.Registry, content string) registry.Reference {
	t.Helper()
	ref := func(role, digest string) registry.Ref { return registry.Ref{Role: role, Digest: digest} }
	features := put(t, r, registry.KindFeatures, `{"source":"departures"}`)
	dataset := put(t, r, registry.KindDataset, "rows of "+content, ref("features", features))
	baseline := put(t, r, registry.KindBaseline, "baseline of "+content, ref("dataset", dataset))
	metrics := put(t, r, registry.KindMetrics, `{"auc":0.7}`, ref("dataset", dataset))
	model := put(t, r, registry.KindModel, content, ref("features", features), ref("dataset", dataset), ref("baseline", baseline), ref("metrics", metrics))
	n, err := r.AddVersion("late", model)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.Resolve("late@" + string(rune('0'+n)))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// server is an OCI registry in this process.
func server(t *testing.T, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	handler := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(true))
	s := httptest.NewServer(wrap(handler))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func plain(h http.Handler) http.Handler { return h }

func place(t *testing.T, text string, create bool) *oci.Place {
	t.Helper()
	p, err := oci.Open(t.Context(), text, create, oci.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// blobs is the digests under a layout's folder, each checked by hand.
func blobs(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if registry.DigestOf(b) != "sha256:"+filepath.Base(path) {
			t.Errorf("%s is not what its name says", path)
		}
		found = append(found, filepath.Base(path))
	}
	return found
}

// What goes from one registry to another by way of an OCI registry, or of a folder, is the same to the bit, and is known by the same digests.
func TestThereAndBack(t *testing.T) {
	host := server(t, plain)
	for name, ref := range map[string]string{"registry": host + "/models/late", "layout": "oci:" + filepath.Join(t.TempDir(), "stick")} {
		for _, withDataset := range []bool{false, true} {
			r := open(t)
			trained(t, r, "another")
			v := trained(t, r, "trees")
			to := place(t, ref, true)
			manifest, err := oci.Push(t.Context(), r, v, to, withDataset)
			if err != nil {
				t.Fatal(name, err)
			}
			other := open(t)
			pulled, err := oci.Pull(t.Context(), other, place(t, to.String(), false), true)
			if err != nil {
				t.Fatal(name, err)
			}
			if pulled.Model != "late" || pulled.Digest != v.Digest || pulled.Manifest != manifest || (pulled.Datasets == 1) != withDataset {
				t.Errorf("%s: pulled %+v, pushed %s as %s", name, pulled, v.Digest, manifest)
			}
			if n, err := other.AddVersion(pulled.Model, pulled.Digest); n != 1 || err != nil {
				t.Errorf("%s: version %d, %v", name, n, err)
			}
			ups, _, err := r.Lineage(v.Digest)
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := other.Lineage(v.Digest)
			if err != nil {
				t.Fatal(name, err)
			}
			if a, b := mustJSON(t, ups), mustJSON(t, again); a != b {
				t.Errorf("%s: lineage is\n%s\nafter\n%s", name, b, a)
			}
			for _, n := range ups.Next {
				_, _, err := other.Read(n.Digest)
				if n.Manifest.Kind == registry.KindDataset && !withDataset {
					if failure.Of(err) != failure.NotFound {
						t.Errorf("%s: rows that were not pushed: %v", name, err)
					}
				} else if err != nil {
					t.Errorf("%s: %s: %v", name, n.Manifest.Kind, err)
				}
			}
			// Pushed on from there, it is the same manifest, and the same blobs are in the folder.
			p, err := other.Pack(v.Digest)
			if err != nil || p.Model.Digest.String() != manifest {
				t.Errorf("%s: packed again as %s, %v", name, p.Model.Digest, err)
			}
			from := blobs(t, r.Dir())
			for _, b := range blobs(t, other.Dir()) {
				if !slices.Contains(from, b) {
					t.Errorf("%s: blob %s is not from the first registry", name, b)
				}
			}
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The registry's own folder is a layout, from which a version can be pulled as from any.
func TestTheFolderIsALayout(t *testing.T) {
	r := open(t)
	trained(t, r, "one")
	v := trained(t, r, "two")
	other := open(t)
	pulled, err := oci.Pull(t.Context(), other, place(t, "oci:"+r.Dir()+":late-2", false), true)
	if err != nil || pulled.Digest != v.Digest || pulled.Datasets != 1 {
		t.Fatalf("pulled %+v, %v", pulled, err)
	}
	// What the specifications ask for, read without our code.
	read := func(path string, into any) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, into); err != nil {
			t.Fatal(err)
		}
	}
	var layout ocispec.ImageLayout
	read(filepath.Join(r.Dir(), "oci-layout"), &layout)
	var index ocispec.Index
	read(filepath.Join(r.Dir(), "index.json"), &index)
	if layout.Version != "1.0.0" || index.SchemaVersion != 2 || len(index.Manifests) != 4 {
		t.Fatalf("%+v %+v", layout, index)
	}
	at := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations["org.opencontainers.image.ref.name"] == "late-2" })
	if at < 0 {
		t.Fatalf("no late-2 in %+v", index.Manifests)
	}
	var manifest ocispec.Manifest
	read(filepath.Join(r.Dir(), "blobs", "sha256", index.Manifests[at].Digest.Encoded()), &manifest)
	if manifest.ArtifactType != "application/vnd.cncf.model.manifest.v1+json" || manifest.Config.MediaType != "application/vnd.cncf.model.config.v1+json" {
		t.Errorf("manifest %+v", manifest)
	}
	var config modelpack.Model
	read(filepath.Join(r.Dir(), "blobs", "sha256", manifest.Config.Digest.Encoded()), &config)
	if config.ModelFS.Type != "layers" || len(config.ModelFS.DiffIDs) != len(manifest.Layers) || config.Descriptor.Name != "late" {
		t.Errorf("config %+v", config)
	}
	weights := 0
	for i, l := range manifest.Layers {
		if info, err := os.Stat(filepath.Join(r.Dir(), "blobs", "sha256", l.Digest.Encoded())); err != nil || info.Size() != l.Size || config.ModelFS.DiffIDs[i] != l.Digest {
			t.Errorf("layer %+v: %v", l, err)
		}
		if l.MediaType == "application/vnd.cncf.model.weight.v1.raw" {
			weights++
			if l.Size != int64(len("two")) {
				t.Errorf("the weights are %+v", l)
			}
		}
	}
	if weights != 1 || len(manifest.Layers) != 5+4 {
		t.Errorf("%d layers, %d of weights", len(manifest.Layers), weights)
	}
}

func wantKind(t *testing.T, what string, err error, kind failure.Kind) {
	t.Helper()
	if err == nil || failure.Of(err) != kind {
		t.Errorf("%s: error is %v (%v), want one of kind %v", what, err, failure.Of(err), kind)
	}
}

func TestWhatIsRefused(t *testing.T) {
	host := server(t, plain)
	r := open(t)
	v := trained(t, r, "trees")
	to := place(t, host+"/late:1", true)
	if _, err := oci.Push(t.Context(), r, v, to, false); err != nil {
		t.Fatal(err)
	}
	pull := func(ref string) error {
		p, err := oci.Open(t.Context(), ref, false, oci.Options{})
		if err != nil {
			return err
		}
		_, err = oci.Pull(t.Context(), open(t), p, false)
		return err
	}
	wantKind(t, "no tag", pull(host+"/late"), failure.BadRequest)
	wantKind(t, "another tag", pull(host+"/late:2"), failure.NotFound)
	wantKind(t, "no reference", pull("late"), failure.BadRequest)
	wantKind(t, "no folder", pull("oci:"+filepath.Join(t.TempDir(), "none")+":1"), failure.NotFound)
	wantKind(t, "nobody there", pull("127.0.0.1:1/late:1"), failure.Unavailable)
	// An image that is no model.
	image := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`
	upload(t, "http://"+host+"/v2/other/manifests/1", ocispec.MediaTypeImageManifest, image)
	wantKind(t, "an image", pull(host+"/other:1"), failure.Refused)
}

func upload(t *testing.T, url, mediaType, body string) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatal(answer.Status)
	}
}

// A registry that gives out other bytes than were pushed is found out, and nothing becomes a version.
func TestALyingRegistryIsFoundOut(t *testing.T) {
	var lie atomic.Bool
	host := server(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if !lie.Load() || !strings.Contains(q.URL.Path, "/blobs/") {
				h.ServeHTTP(w, q)
				return
			}
			kept := httptest.NewRecorder()
			h.ServeHTTP(kept, q)
			for name, values := range kept.Header() {
				w.Header()[name] = values
			}
			w.WriteHeader(kept.Code)
			_, _ = w.Write(bytes.Replace(kept.Body.Bytes(), []byte("trees"), []byte("bears"), 1))
		})
	})
	r := open(t)
	if _, err := oci.Push(t.Context(), r, trained(t, r, "trees"), place(t, host+"/late:1", true), false); err != nil {
		t.Fatal(err)
	}
	lie.Store(true)
	other := open(t)
	_, err := oci.Pull(t.Context(), other, place(t, host+"/late:1", false), false)
	wantKind(t, "other bytes", err, failure.Corrupt)
	lie.Store(false)
	if _, err := oci.Pull(t.Context(), other, place(t, host+"/late:1", false), false); err != nil {
		t.Errorf("after it has mended: %v", err)
	}
}

// A blob that has rotten here is fetched again by the next pull.
func TestPullMends(t *testing.T) {
	host := server(t, plain)
	r := open(t)
	v := trained(t, r, "trees")
	if _, err := oci.Push(t.Context(), r, v, place(t, host+"/late:1", true), false); err != nil {
		t.Fatal(err)
	}
	m, err := r.Manifest(v.Digest)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.Dir(), "blobs", "sha256", strings.TrimPrefix(m.Content, "sha256:"))
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("treeX"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.Read(v.Digest)
	wantKind(t, "rotten", err, failure.Corrupt)
	if _, err := oci.Pull(t.Context(), r, place(t, host+"/late:1", false), false); err != nil {
		t.Fatal(err)
	}
	if _, b, err := r.Read(v.Digest); err != nil || string(b) != "trees" {
		t.Errorf("read %q, %v", b, err)
	}
}

// The credentials are those that docker login has kept.
func TestCredentials(t *testing.T) {
	host := server(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if user, password, _ := q.BasicAuth(); user != "edge" || password != "secret" {
				w.Header().Set("WWW-Authenticate", `Basic realm="models"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			h.ServeHTTP(w, q)
		})
	})
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	r := open(t)
	v := trained(t, r, "trees")
	push := func() error {
		_, err := oci.Push(context.WithoutCancel(t.Context()), r, v, place(t, host+"/late", true), true)
		return err
	}
	wantKind(t, "without credentials", push(), failure.Refused)
	config := `{"auths":{"` + host + `":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("edge:secret")) + `"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := push(); err != nil {
		t.Error(err)
	}
}
