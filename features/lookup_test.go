package features

import (
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

func TestTableAsOf(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 9))
	table := NewTable("t", 1000)
	latest := map[string]map[int64]int64{"a": {}, "b": {}} // key to time to value; -1 is deleted
	for i := range int64(200) {
		key, from := []string{"a", "b"}[random.IntN(2)], random.Int64N(50)
		row, value := schemas.Row{schemas.IntValue(i)}, i
		if random.IntN(4) == 0 {
			row, value = nil, -1
		}
		if err := table.Put(key, from, row); err != nil {
			t.Fatal(err)
		}
		latest[key][from] = value
	}
	for key, versions := range latest {
		for at := int64(-2); at < 55; at++ {
			want := int64(-1)
			for from := int64(0); from <= at; from++ {
				if v, ok := versions[from]; ok {
					want = v
				}
			}
			got := int64(-1)
			if row, ok := table.At(key, at); ok {
				got = row[0].Int()
			}
			if got != want {
				t.Errorf("%s at %d is %d, want %d", key, at, got, want)
			}
		}
	}
	if _, ok := table.At("c", 10); ok || table.Len() != len(latest["a"])+len(latest["b"]) {
		t.Errorf("%d rows", table.Len())
	}
}

func TestTableIsBounded(t *testing.T) {
	table := NewTable("t", 2)
	one := schemas.Row{schemas.IntValue(1)}
	for _, key := range []string{"a", "b", "a"} { // the third takes the place of the first
		if err := table.Put(key, Always, one); err != nil {
			t.Fatal(err)
		}
	}
	if err := table.Put("a", 5, one); failure.Of(err) != failure.Refused {
		t.Errorf("a row too many: %v", err)
	}
	if row, ok := table.At("a", 10); !ok || row[0].Int() != 1 || table.Len() != 2 {
		t.Errorf("afterwards: %v, %d rows", row, table.Len())
	}
	other := NewTable("t", 2)
	table.Become(other)
	if _, ok := table.At("a", 10); ok || table.Len() != 0 {
		t.Error("the old rows are still there")
	}
}
