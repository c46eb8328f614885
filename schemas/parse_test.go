package schemas

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func trip(t testing.TB) *Schema {
	t.Helper()
	text, err := os.ReadFile("testdata/trip.avsc")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("trip", text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustParse(t testing.TB, text string) *Schema {
	t.Helper()
	s, err := Parse("test", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseMakesColumns(t *testing.T) {
	s := trip(t)
	var got []string
	for _, c := range s.Columns {
		text := c.Name + " " + c.Kind.String()
		if c.Nullable {
			text += "?"
		}
		got = append(got, text)
	}
	want := []string{
		"id string", "started time", "ended time?", "seats int", "metres int", "speed float", "fare float?", "paid bool", "class string",
		"returnClass string?", "raw bytes", "hash bytes", "from.code string", "from.position.lat float", "from.position.lon float?",
		"to.code string", "to.position.lat float", "to.position.lon float?",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("columns are\n%q, want\n%q", got, want)
	}
	seats, ok := s.Column("seats")
	if !ok || *seats.Min != 0 || *seats.Max != 500 {
		t.Errorf("seats: %+v, %v", seats, ok)
	}
	if class, _ := s.Column("returnClass"); !reflect.DeepEqual(class.Symbols, []string{"FIRST", "SECOND"}) {
		t.Errorf("returnClass has the symbols %q", class.Symbols)
	}
	if id, _ := s.Column("id"); id.Doc != "who" {
		t.Errorf("id has the doc %q", id.Doc)
	}
	if i := s.Index("to.position.lat"); i != 16 {
		t.Errorf("Index(to.position.lat) = %d", i)
	}
	if s.Index("nowhere") != -1 {
		t.Error("a column that is not there has an index")
	}
	if got := s.Suggest("from.position.lta"); got != "from.position.lat" {
		t.Errorf("Suggest = %q", got)
	}
	if c := s.Canonical(); !strings.HasPrefix(c, `{"name":"test.Trip","type":"record","fields":[{"name":"id","type":"string"},{"name":"started","type":"long"}`) || strings.Contains(c, "minimum") {
		t.Errorf("canonical form: %s", c)
	}
}

func TestParseRefuses(t *testing.T) {
	record := func(fields string) string { return `{"type":"record","name":"R","fields":[` + fields + `]}` }
	for name, c := range map[string]struct{ text, want string }{
		"not JSON":            {`{`, "not JSON"},
		"two documents":       {`"int" "int"`, "something follows"},
		"not Avro":            {`{"type":"record"}`, "not an Avro schema"},
		"not a record":        {`"int"`, "must be a record, not int"},
		"no fields":           {record(``), "no fields"},
		"array":               {record(`{"name":"a","type":{"type":"array","items":"int"}}`), "a: array is not supported"},
		"map below":           {record(`{"name":"a","type":{"type":"record","name":"S","fields":[{"name":"b","type":{"type":"map","values":"int"}}]}}`), "a.b: map is not supported"},
		"union of two":        {record(`{"name":"a","type":["int","string"]}`), "a: a union must be of null and one scalar"},
		"union of three":      {record(`{"name":"a","type":["null","int","string"]}`), "a: a union must be"},
		"nullable record":     {record(`{"name":"a","type":["null",{"type":"record","name":"S","fields":[{"name":"b","type":"int"}]}]}`), "a: a nullable record is not supported"},
		"null":                {record(`{"name":"a","type":"null"}`), "a: null is not supported"},
		"record in itself":    {record(`{"name":"a","type":"R"}`), "R"},
		"range of text":       {record(`{"name":"a","type":"string","minimum":1}`), "a: a string has no range"},
		"range upside down":   {record(`{"name":"a","type":"int","minimum":2,"maximum":1}`), "a: the minimum 2 is above the maximum 1"},
		"range not a number":  {record(`{"name":"a","type":"int","minimum":"2"}`), "a: minimum: must be a number"},
		"default off range":   {record(`{"name":"a","type":"int","minimum":2,"default":1}`), "a: default: a: range: 1 is below the minimum 2"},
		"default of no type":  {record(`{"name":"a","type":"int","default":"x"}`), "a"},
		"unknown type":        {record(`{"name":"a","type":"decimal"}`), "decimal"},
		"default lacks field": {record(`{"name":"a","default":{},"type":{"type":"record","name":"S","fields":[{"name":"b","type":"int"}]}}`), "b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("test", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestNearest(t *testing.T) {
	names := []string{"origin", "destination", "delay", "distance"}
	for name, want := range map[string]string{"orgiin": "origin", "dealy": "delay", "Delay": "delay", "destinatiom": "destination", "weather": "", "": "", "x": ""} {
		if got := Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestReads(t *testing.T) {
	record := func(fields string) string { return `{"type":"record","name":"R","fields":[` + fields + `]}` }
	const a, b = `{"name":"a","type":"int"}`, `{"name":"b","type":"int"}`
	for name, c := range map[string]struct {
		old, new              string
		avro, confluent, json bool // can the new schema read the old records?
	}{
		"the same":              {a, a, true, true, true},
		"documented":            {a, `{"name":"a","type":"int","doc":"d","default":1}`, true, true, true},
		"a field more":          {a, a + `,` + b, false, false, false},
		"with a default":        {a, a + `,{"name":"b","type":"int","default":0}`, false, true, true},
		"a field less":          {a + `,` + b, a, false, true, false},
		"widened":               {a, `{"name":"a","type":"long"}`, false, true, true},
		"narrowed":              {`{"name":"a","type":"long"}`, a, false, false, false},
		"another unit of time":  {`{"name":"a","type":{"type":"long","logicalType":"timestamp-millis"}}`, `{"name":"a","type":{"type":"long","logicalType":"timestamp-micros"}}`, false, true, true},
		"nullable and the null": {a, `{"name":"a","type":["null","int"]}`, false, true, true},
	} {
		s := mustParse(t, record(c.new))
		for f, want := range map[Format]bool{Avro: c.avro, Confluent: c.confluent, JSON: c.json} {
			if err := s.Reads(record(c.old), f); (err == nil) != want {
				t.Errorf("%s: Reads in %s: %v, want readable %v", name, f, err, want)
			}
		}
	}
}
