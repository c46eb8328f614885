package schemas

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

func sameAsStrconv(t *testing.T, f float64) {
	t.Helper()
	if got, want := string(AppendFloat(nil, f)), strconv.FormatFloat(f, 'g', -1, 64); got != want {
		t.Fatalf("%x: %s, strconv has %s", math.Float64bits(f), got, want)
	}
}

// A number's text is strconv's: at the bounds of what is written from an integer, of amounts with up to six places and the floats beside
// them, and of any bits.
func TestAppendFloatIsStrconvs(t *testing.T) {
	around := func(f float64) {
		for _, x := range []float64{f, math.Nextafter(f, math.Inf(1)), math.Nextafter(f, math.Inf(-1))} {
			sameAsStrconv(t, x)
			sameAsStrconv(t, -x)
		}
	}
	for _, f := range []float64{
		0, 1e-5, 9e-5, 1e-4, 1.5e-4, 0.1, 0.30000000000000004, 1, 10, 100, 1e5, 123456, 999999, 999999.5, 999999.9999, 999999.99995, 1e6, 1234567, 1e15, 1e21, 1e22,
		math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.NaN(),
	} {
		around(f)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50_000 {
		scale := math.Pow(10, float64(random.IntN(7)))
		around(float64(random.Int64N(int64(math.Pow(10, float64(1+random.IntN(11)))))) / scale)
		sameAsStrconv(t, math.Float64frombits(random.Uint64()))
	}
}

func FuzzAppendFloat(f *testing.F) {
	for _, x := range []float64{0, math.Copysign(0, -1), 12.5, -999999.9999, 1e6, 1e-4} {
		f.Add(math.Float64bits(x))
	}
	f.Fuzz(func(t *testing.T, bits uint64) { sameAsStrconv(t, math.Float64frombits(bits)) })
}

// BenchmarkAppendFloat writes amounts, and numbers of all their digits.
func BenchmarkAppendFloat(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	amounts, full := make([]float64, 1024), make([]float64, 1024)
	for i := range amounts {
		full[i] = random.ExpFloat64() * 30
		amounts[i] = math.Floor(full[i]*100) / 100
	}
	for name, list := range map[string][]float64{"amounts": amounts, "full": full} {
		b.Run(name, func(b *testing.B) {
			var room [32]byte
			for i := 0; b.Loop(); i++ {
				AppendFloat(room[:0], list[i%len(list)])
			}
		})
		b.Run(name+" strconv", func(b *testing.B) {
			var room [32]byte
			for i := 0; b.Loop(); i++ {
				strconv.AppendFloat(room[:0], list[i%len(list)], 'g', -1, 64)
			}
		})
	}
}
