package features

import (
	"math"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

const arrivalSchema = `{"type":"record","name":"arrival","fields":[
 {"name":"flight_id","type":"string"},
 {"name":"origin","type":"string"},
 {"name":"destination","type":["null","string"],"default":null},
 {"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},
 {"name":"delay","type":["null","double"],"default":null},
 {"name":"seats","type":["null","long"],"default":null},
 {"name":"cancelled","type":"boolean"},
 {"name":"carrier","type":{"type":"enum","name":"carrier","symbols":["AA","DL","UA"]}}]}`

// Columns of arrivalSchema.
const (
	flightID = iota
	origin
	destination
	arrived
	delay
	seats
	cancelled
	carrier
	columnCount
)

func arrivals(t testing.TB) *schemas.Schema {
	t.Helper()
	s, err := schemas.Parse("arrival", []byte(arrivalSchema))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func compiled(t testing.TB, d Definition) *Group {
	t.Helper()
	if d.Name == "" {
		d.Name = "delays"
	}
	if d.Source == "" {
		d.Source = "arrivals"
	}
	if d.Entity == nil {
		d.Entity = []string{"origin"}
	}
	g, faults := Compile(d, arrivals(t))
	for _, f := range faults {
		t.Error(f)
	}
	if g == nil {
		t.FailNow()
	}
	return g
}

// row makes an arrival; a NaN delay is null, an empty destination is null.
func row(at int64, delayed float64, to string) schemas.Row {
	r := make(schemas.Row, columnCount)
	r[flightID], r[origin] = schemas.StringValue("f"), schemas.StringValue("ATL")
	if to != "" {
		r[destination] = schemas.StringValue(to)
	}
	r[arrived] = schemas.TimeValue(at)
	if !math.IsNaN(delayed) {
		r[delay] = schemas.FloatValue(delayed)
		r[seats] = schemas.IntValue(int64(delayed))
	}
	r[cancelled] = schemas.BoolValue(false)
	r[carrier] = schemas.StringValue("AA")
	return r
}

func add(t testing.TB, g *Group, e *Entity, r schemas.Row, at, seq int64) {
	t.Helper()
	if outcome, err := g.Add(e, r, at, seq); err != nil || outcome != Applied {
		t.Fatalf("adding at %d: %v, %v", at, outcome, err)
	}
}

func value(t testing.TB, g *Group, results []Result, name string) Result {
	t.Helper()
	i := g.Output(name)
	if i < 0 {
		t.Fatalf("there is no output %q", name)
	}
	return results[i]
}

func wantNumber(t testing.TB, g *Group, results []Result, name string, want, tolerance float64) {
	t.Helper()
	r := value(t, g, results, name)
	f, ok := r.Value.Float()
	if r.Status != Present || !ok || math.Abs(f-want) > tolerance {
		t.Errorf("%s is %v (%v), want %v", name, r.Value.Any(), r.Status, want)
	}
}

func wantStatus(t testing.TB, g *Group, results []Result, name string, want Status) {
	t.Helper()
	if r := value(t, g, results, name); r.Status != want || !r.Value.IsNull() {
		t.Errorf("%s is %v (%v), want %v", name, r.Value.Any(), r.Status, want)
	}
}

func ms(d time.Duration) int64 { return d.Milliseconds() }

func ptr(f float64) *float64 { return &f }
