package offline

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// training is a made-up training set of n rows.
func training(n int) *Dataset {
	r := rand.New(rand.NewPCG(1, 2))
	d := &Dataset{Names: []string{"delay_mean_1h", "hour", "distance"}, Columns: make([][]float64, 3)}
	for i := range n {
		for c := range d.Columns {
			x := math.Round(r.NormFloat64()*100) / 10
			if r.IntN(9) == 0 {
				x = math.NaN()
			}
			d.Columns[c] = append(d.Columns[c], x)
		}
		d.Keys = append(d.Keys, string(rune('A'+r.IntN(26)))+"·flight")
		d.Times = append(d.Times, monday+int64(i)*1000)
		d.Labels = append(d.Labels, float64(r.IntN(2)))
	}
	return d
}

func writeDataset(t *testing.T, path string, d *Dataset) string {
	t.Helper()
	w, err := NewDatasetWriter(path, d.Names)
	if err != nil {
		t.Fatal(err)
	}
	row := make([]float64, len(d.Names))
	for i := range d.Keys {
		for c := range row {
			row[c] = d.Columns[c][i]
		}
		if err := w.Append(d.Keys[i], d.Times[i], d.Labels[i], row); err != nil {
			t.Fatal(err)
		}
	}
	if w.Rows() != int64(len(d.Keys)) {
		t.Fatalf("%d rows", w.Rows())
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("the file is there before it is whole")
	}
	digest, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	return digest
}

func TestDatasetComesBack(t *testing.T) {
	for _, n := range []int{0, 1, rowsPerBatch, rowsPerBatch + 1000} {
		path := filepath.Join(t.TempDir(), "set.arrow")
		want := training(n)
		digest := writeDataset(t, path, want)
		bytes, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(bytes); digest != "sha256:"+hex.EncodeToString(sum[:]) {
			t.Fatalf("digest is %s", digest)
		}
		got, err := ReadDataset(path)
		if err != nil {
			t.Fatal(err)
		}
		equal := slices.Equal(got.Names, want.Names) && slices.Equal(got.Keys, want.Keys) && slices.Equal(got.Times, want.Times) &&
			slices.Equal(got.Labels, want.Labels)
		for c := range want.Columns {
			equal = equal && slices.EqualFunc(got.Columns[c], want.Columns[c], func(a, b float64) bool {
				return a == b || math.IsNaN(a) && math.IsNaN(b)
			})
		}
		if !equal {
			t.Fatalf("a set of %d rows comes back different", n)
		}
	}
}

// A training run repeated elsewhere must give the same digest, whatever the number of processors.
func TestDatasetDigestIsRepeatable(t *testing.T) {
	set := training(70_000)
	digests := map[string]bool{}
	for _, n := range []int{1, 2, 5} {
		before := runtime.GOMAXPROCS(n)
		digests[writeDataset(t, filepath.Join(t.TempDir(), "set.arrow"), set)] = true
		runtime.GOMAXPROCS(before)
	}
	if len(digests) != 1 {
		t.Fatalf("digests differ: %v", digests)
	}
	set.Labels[69_999] = 7
	if digest := writeDataset(t, filepath.Join(t.TempDir(), "set.arrow"), set); digests[digest] {
		t.Fatal("another set has the same digest")
	}
}

func TestDatasetRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "set.arrow")
	for _, names := range [][]string{{"_label"}, {"_time"}, {"a", "a"}} {
		if _, err := NewDatasetWriter(path, names); failure.Of(err) != failure.BadProject {
			t.Errorf("%q: %v", names, err)
		}
	}
	w, err := NewDatasetWriter(path, []string{"a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Append("k", 0, 0, nil); failure.Of(err) != failure.Internal {
		t.Errorf("a short row: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err == nil {
		t.Error("an abandoned set was closed")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Fatalf("these are left: %v, %v", left, err)
	}
	if _, err := ReadDataset(path); failure.Of(err) != failure.NotFound {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, []byte("ARROW1 or so, but not really ARROW1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDataset(path); failure.Of(err) != failure.Corrupt {
		t.Errorf("no Arrow file: %v", err)
	}
	table := open(t, t.TempDir())
	write(t, takeOver(t, table, 0, WriterOptions{}), 3)
	if _, err := ReadDataset(filepath.Join(table.dir, scanFiles(t, table.dir)[0].Path)); failure.Of(err) != failure.Corrupt {
		t.Errorf("another kind of file: %v", err)
	}
}
