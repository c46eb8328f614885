//go:build onnx

package onnx

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// What a session holds outside of Go is given back when nobody has the session any more, and not before.
func TestClosedWhenUnused(t *testing.T) {
	s := open(t)
	n := s.native
	out := make([]float64, 2)
	for range 3 {
		runtime.GC()
		if err := s.Score([][]float64{{1, 2, 3, 4, 5}}, out); err != nil {
			t.Fatal(err)
		}
	}
	if n.closed.Load() || len(n.idle) != 1 {
		t.Fatalf("closed %v, with %d calls kept, while it is used", n.closed.Load(), len(n.idle))
	}
	runtime.KeepAlive(s)
	s = nil
	for deadline := time.Now().Add(10 * time.Second); !n.closed.Load(); runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("it is not closed")
		}
	}
	if len(n.idle) != 0 {
		t.Errorf("%d calls are kept", len(n.idle))
	}
}

// A row costs few allocations: the list of one row, and those of the binding.
func TestAllocations(t *testing.T) {
	s := open(t)
	row, out := []float64{1, 2, 3, 4, 5}, make([]float64, 2)
	if got := testing.AllocsPerRun(100, func() { _ = s.Score([][]float64{row}, out) }); got > 5 {
		t.Errorf("%v allocations a row", got)
	}
}

func open(t *testing.T) *Session {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", "onnx", "xgboost-binary.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
