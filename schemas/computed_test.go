package schemas

import (
	"slices"
	"strings"
	"testing"
)

const pointSchema = `{"type": "record", "name": "point", "fields": [{"name": "x", "type": "long"}, {"name": "y", "type": "long"}]}`

func sumOf(a, b int) func(Row) Value {
	return func(r Row) Value { return IntValue(r[a].Int() + r[b].Int()) }
}

func TestComputedColumns(t *testing.T) {
	record, err := Parse("point", []byte(pointSchema))
	if err != nil {
		t.Fatal(err)
	}
	joined, err := record.Join(Column{Name: "z", Kind: Int})
	if err != nil {
		t.Fatal(err)
	}
	s, err := joined.Derive(Computed{Name: "xy", Kind: Int, Reads: []string{"x", "y"}, Eval: sumOf(0, 1), Definition: "x + y"})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Derive(Computed{Name: "more", Kind: Int, Reads: []string{"xy", "z"}, Eval: sumOf(3, 2), Definition: "xy + z"}); err != nil {
		t.Fatal(err)
	}
	if len(record.Columns) != 2 || record.Index("z") != -1 || len(s.Columns) != 5 || s.Stored() != 3 || s.Record() != record {
		t.Fatalf("the record has %d columns, the row %d, %d of them stored", len(record.Columns), len(s.Columns), s.Stored())
	}
	if needs := s.Needs(4); !slices.Equal(needs, []int{0, 1, 2}) || !slices.Equal(s.Needs(1), []int{1}) {
		t.Errorf("more needs %v", needs)
	}
	if got := s.Columns[4].Meaning(); got != "more: xy + z; xy: x + y" {
		t.Errorf("meaning %q", got)
	}
	for _, format := range []Format{Avro, JSON} {
		encoder, err := NewEncoder(s, format, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		decoder, err := NewDecoder(s, format, nil)
		if err != nil {
			t.Fatal(err)
		}
		row := make(Row, 0, 8)
		for range 2 { // the second into the row of the first
			b, err := encoder.Encode(t.Context(), Row{IntValue(3), IntValue(4), IntValue(100), IntValue(0), IntValue(0)})
			if err != nil {
				t.Fatal(err)
			}
			if row, err = decoder.Decode(t.Context(), b, row); err != nil {
				t.Fatal(err)
			}
			if len(row) != 5 || !row[2].IsNull() || row[3].Int() != 7 || row[4].Int() != 7 {
				t.Fatalf("%s: row %v", format, row)
			}
			row[2] = IntValue(100)
			if s.Compute(row); row[4].Int() != 107 {
				t.Errorf("with what was looked up: %v", row)
			}
		}
		if _, err := decoder.Decode(t.Context(), []byte(`{"x": 1, "y": 2, "xy": 3}`), nil); err == nil {
			t.Errorf("%s: a record with a derived column is taken", format)
		}
	}
}

func TestComputedColumnsThatCannotBe(t *testing.T) {
	record, err := Parse("point", []byte(pointSchema))
	if err != nil {
		t.Fatal(err)
	}
	xy := Computed{Name: "xy", Kind: Int, Reads: []string{"x", "y"}, Eval: sumOf(0, 1)}
	derived, err := record.Derive(xy)
	if err != nil {
		t.Fatal(err)
	}
	_, twice := derived.Derive(xy)
	_, unknown := record.Derive(Computed{Name: "a", Kind: Int, Reads: []string{"w"}})
	_, late := derived.Join(Column{Name: "z", Kind: Int})
	_, taken := record.Join(Column{Name: "x", Kind: Int})
	for want, err := range map[string]error{`a column "xy" already`: twice, `no column "w"`: unknown, "before others": late, `a column "x" already`: taken} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
