package gbdt

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestEncodeMatchesSearch compares the branch-free search with a plain one, over columns of many kinds.
func TestEncodeMatchesSearch(t *testing.T) {
	d := someData(5000, 21)
	for _, limit := range []int{2, 3, 16, 254, 255} {
		for c, column := range d.Columns {
			b := findBins(column, sampleRows(len(column), 1000, 1), limit)
			if !slices.IsSorted(b.bounds) || len(slices.Compact(slices.Clone(b.bounds))) != len(b.bounds) {
				t.Fatalf("%s: bounds %v", d.Names[c], b.bounds)
			}
			bins := len(b.bounds)
			if b.missing {
				bins++
			}
			if bins > limit || b.bounds[len(b.bounds)-1] != math.MaxFloat64 {
				t.Fatalf("%s: %d bins of %d up to %v", d.Names[c], bins, limit, b.bounds[len(b.bounds)-1])
			}
			b.encode(column, func(row int, bin uint8) {
				want := slices.IndexFunc(b.bounds, func(bound float64) bool { return clamp(column[row]) <= bound })
				if math.IsNaN(column[row]) {
					want = len(b.bounds)
				}
				if int(bin) != want {
					t.Fatalf("%s: %v is in bin %d, want %d", d.Names[c], column[row], bin, want)
				}
			})
		}
	}
}

// TestBinsAreFair expects bins of about the same number of rows, and one for itself where a value fills one.
func TestBinsAreFair(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	values := make([]float64, 20_000)
	for i := range values {
		values[i] = r.NormFloat64()
		if i%2 == 0 {
			values[i] = 1
		}
	}
	slices.Sort(values)
	bounds := chooseBounds(values, 100)
	counts := make([]int, len(bounds))
	alone := false
	for _, x := range values {
		at, _ := slices.BinarySearch(bounds, x)
		counts[at]++
	}
	for i, n := range counts {
		alone = alone || n == 10_000
		if n != 10_000 && n > 250 {
			t.Errorf("bin %d up to %v holds %d rows", i, bounds[i], n)
		}
	}
	if !alone || len(bounds) < 95 {
		t.Errorf("%d bins of %v rows", len(bounds), counts)
	}
}

func TestBetween(t *testing.T) {
	for _, c := range [][2]float64{
		{0, 1}, {-1, 1}, {1, math.Nextafter(1, 2)}, {-math.MaxFloat64, math.MaxFloat64}, {0, 5e-324}, {-5e-324, 0}, {-5e-324, 5e-324},
	} {
		if m := between(c[0], c[1]); !(m >= c[0] && m < c[1]) {
			t.Errorf("between %v and %v: %v", c[0], c[1], m)
		}
	}
}

func TestSampleRowsAreSpread(t *testing.T) {
	s := sampleRows(1_000_003, 1000, 9)
	for i, row := range s {
		if from, until := i*1_000_003/1000, (i+1)*1_000_003/1000; int(row) < from || int(row) >= until {
			t.Fatalf("sample %d is row %d, not in %d to %d", i, row, from, until)
		}
	}
}
