package profile

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 20010101)) }

func normals(r *rand.Rand, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = r.NormFloat64()
	}
	return out
}

func chunksOf(rows, chunks int) []int {
	out := make([]int, rows)
	for i := range out {
		out[i] = i * chunks / rows
	}
	return out
}

// TestBinsCountWhatLiesInThem counts by brute force over the borders that a baseline shows.
func TestBinsCountWhatLiesInThem(t *testing.T) {
	r := random(1)
	values := normals(r, 5000)
	for i := range values {
		switch {
		case i%3 == 0:
			values[i] = 0 // an atom of a third
		case i%7 == 0:
			values[i] = math.NaN()
		}
	}
	b := Build([]string{"x"}, [][]float64{values}, nil)
	c := &b.Columns[0]
	if c.Discrete || len(c.Edges) > MaxBins || len(c.Groups) > MaxGroups {
		t.Fatalf("discrete %v, %d bins, %d groups", c.Discrete, len(c.Edges), len(c.Groups))
	}
	atom := slices.Index(c.Edges, 0)
	if atom < 1 {
		t.Fatal("the atom at 0 has no bin of its own")
	}
	nulls, present := 0, 0
	for _, v := range values {
		if math.IsNaN(v) {
			nulls++
		} else {
			present++
		}
	}
	if c.Nulls != int64(nulls) {
		t.Errorf("%d nulls, want %d", c.Nulls, nulls)
	}
	low := math.Inf(-1)
	for i, high := range c.Edges {
		want := 0
		for _, v := range values {
			if v > low && v <= high {
				want++
			}
		}
		if c.Counts[i] != int64(want) {
			t.Errorf("bin %d (%g, %g]: %d, want %d", i, low, high, c.Counts[i], want)
		}
		low = high
	}
	total := 0.0
	for _, bin := range c.Bins() {
		want := 0
		for _, v := range values {
			if (v > bin.Low || bin.Low == c.Min && v == c.Min) && v <= bin.High {
				want++
			}
		}
		near(t, "share", bin.Share, float64(want)/float64(present), 1e-12)
		total += bin.Share
	}
	near(t, "all shares", total, 1, 1e-12)
}

func TestFewValuesGetABinEach(t *testing.T) {
	b := Build([]string{"weekday", "constant", "empty"}, [][]float64{
		{0, 1, 2, 3, 4, 5, 6, 0, 6, 6},
		{4, 4, 4, 4, 4, 4, 4, 4, 4, 4},
		slices.Repeat([]float64{math.NaN()}, 10),
	}, nil)
	if c := b.Columns[0]; !c.Discrete || !slices.Equal(c.Edges, []float64{0, 1, 2, 3, 4, 5, 6}) || !slices.Equal(c.Counts, []int64{2, 1, 1, 1, 1, 1, 3}) {
		t.Errorf("weekday: %+v", c)
	}
	w := b.NewWindow()
	for range 200 {
		w.Add([]float64{3, 5, 1})
	}
	columns, _ := b.Compare(w, DefaultSensitivity())
	for _, c := range columns[:2] {
		if !c.Sufficient || c.PSI < c.PSIThreshold {
			t.Errorf("%s: PSI %g of %g, sufficient %v", c.Column, c.PSI, c.PSIThreshold, c.Sufficient)
		}
	}
	if columns[1].OutOfRange != 1 || columns[2].Sufficient || columns[2].BaselineNullRate != 1 {
		t.Errorf("constant %+v, empty %+v", columns[1], columns[2])
	}
}

func TestARareValueThatBecomesFrequentIsSeen(t *testing.T) {
	values := make([]float64, 4000)
	for i := 0; i < len(values); i += 500 {
		values[i] = 1
	}
	b := Build([]string{"flag"}, [][]float64{values}, chunksOf(len(values), 20))
	w := b.NewWindow()
	for i := range 200 {
		w.Add([]float64{float64(i % 2)})
	}
	if c := Compare(b, w)[0]; c.PSI < c.PSIThreshold || c.JensenShannon < c.JensenShannonThreshold {
		t.Errorf("%+v", c)
	}
}

func TestEncodeIsDeterministicAndReadsBack(t *testing.T) {
	build := func() *Baseline {
		r := random(2)
		b := Build([]string{"a", "b"}, [][]float64{normals(r, 3000), normals(r, 3000)}, chunksOf(3000, 12))
		scores, labels := make([]float64, 900), make([]float64, 900)
		for i := range scores {
			scores[i] = r.Float64()
			if r.Float64() < scores[i] {
				labels[i] = 1
			}
		}
		b.HoldOut(scores, labels, chunksOf(900, 6))
		return b
	}
	first, err := build().Encode()
	if err != nil {
		t.Fatal(err)
	}
	second, _ := build().Encode()
	if !bytes.Equal(first, second) {
		t.Error("the same rows gave other bytes")
	}
	b, err := Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	if b.Performance == nil || b.Performance.Chunks != 6 || math.Abs(b.Performance.AUC-5.0/6) > 0.04 {
		t.Errorf("performance %+v, want an AUC of about 5/6", b.Performance)
	}
	again, _ := b.Encode()
	if !bytes.Equal(first, again) {
		t.Error("decoding and encoding changed bytes")
	}
	if got, want := b.Columns[0].calibration, build().Columns[0].calibration; got != want {
		t.Errorf("calibration after decoding %+v, before %+v", got, want)
	}
}

func TestDecodeRefusesWhatDoesNotFit(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `{"format":9}`,
		`{"format":1,"columns":[{"name":"x","edges":[1,2],"counts":[1]}]}`,
		`{"format":1,"columns":[{"name":"x","edges":[2,1],"counts":[1,1],"groups":[0,1]}]}`,
		`{"format":1,"columns":[{"name":"x","edges":[1,2],"counts":[1,1],"groups":[0,2]}]}`,
		`{"format":1,"columns":[{"name":"x","edges":[1,2],"counts":[1,1],"groups":[0,-1]}]}`,
		`{"format":1,"columns":[{"name":"x","edges":[1,2],"counts":[1,1],"groups":[0,1],"chunks":[{"groups":[1]}]}]}`,
	} {
		if _, err := Decode([]byte(text)); failure.Of(err) != failure.Corrupt {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b := Build([]string{"a"}, [][]float64{normals(random(3), 400)}, chunksOf(400, 8))
	text, _ := b.Encode()
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := Decode(text)
		if err != nil {
			return
		}
		w := b.NewWindow()
		for i := range 200 {
			row := make([]float64, len(b.Columns))
			for c := range row {
				row[c] = float64(i)
			}
			w.Add(row)
		}
		b.Compare(w, DefaultSensitivity())
	})
}

func TestWindowsMergeToTheirUnion(t *testing.T) {
	r := random(4)
	b := Build([]string{"a"}, [][]float64{normals(r, 2000)}, chunksOf(2000, 10))
	whole, left, right := b.NewWindow(), b.NewWindow(), b.NewWindow()
	for i := range 500 {
		row := []float64{r.NormFloat64() * 2}
		whole.Add(row)
		if i%3 == 0 {
			left.Add(row)
		} else {
			right.Add(row)
		}
	}
	left.Merge(right)
	if got, want := Compare(b, left)[0], Compare(b, whole)[0]; got != want {
		t.Errorf("merged %+v, whole %+v", got, want)
	}
}

func TestTooFewValuesAreInsufficient(t *testing.T) {
	r := random(5)
	b := Build([]string{"a"}, [][]float64{normals(r, 2000)}, chunksOf(2000, 10))
	w := b.NewWindow()
	for range 99 {
		w.Add([]float64{100})
	}
	if Compare(b, w)[0].Sufficient {
		t.Error("99 values were judged")
	}
	w.Add([]float64{100})
	if c := Compare(b, w)[0]; !c.Sufficient || c.PSI < c.PSIThreshold || c.OutOfRange != 1 {
		t.Errorf("%+v", c)
	}
}

func TestChunkAlignsToTheEpoch(t *testing.T) {
	day := 24 * time.Hour
	for at, want := range map[int64]int{0: 0, 86_399_999: 0, 86_400_000: 1, -1: -1, -86_400_000: -1} {
		if got := Chunk(at, day); got != want {
			t.Errorf("Chunk(%d) = %d, want %d", at, got, want)
		}
	}
}

func BenchmarkWindowAdd(b *testing.B) {
	r := random(6)
	columns, names := make([][]float64, 20), make([]string, 20)
	for i := range columns {
		columns[i], names[i] = normals(r, 10_000), string(rune('a'+i))
	}
	base := Build(names, columns, chunksOf(10_000, 20))
	w := base.NewWindow()
	rows := make([][]float64, 256)
	for i := range rows {
		rows[i] = normals(r, 20)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Add(rows[i%len(rows)])
	}
}

func BenchmarkCompare(b *testing.B) {
	r := random(7)
	base := Build([]string{"a"}, [][]float64{normals(r, 10_000)}, chunksOf(10_000, 20))
	w := base.NewWindow()
	for range 1000 {
		w.Add([]float64{r.NormFloat64()})
	}
	for b.Loop() {
		Compare(base, w)
	}
}
