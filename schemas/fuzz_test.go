package schemas

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/linkedin/goavro/v2"
)

// FuzzAvro: no bytes make the decoder panic, and what it accepts goavro accepts with the same values.
func FuzzAvro(f *testing.F) {
	s := trip(f)
	oracle, err := goavro.NewCodec(s.source)
	if err != nil {
		f.Fatal(err)
	}
	decoder, encoder := codecs(f, s, Avro)
	record, err := encoder.Encode(f.Context(), tripRow())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add(record[:20])
	f.Fuzz(func(t *testing.T, record []byte) {
		row, err := decoder.Decode(t.Context(), record, nil)
		if err != nil {
			if class(err) == err.Error() {
				t.Fatalf("not a RecordError: %v", err)
			}
			return
		}
		native, rest, err := oracle.NativeFromBinary(record)
		if err != nil || len(rest) > 0 {
			t.Fatalf("goavro refuses what we accept: %v", err)
		}
		again, err := encoder.Encode(t.Context(), row)
		if err != nil {
			t.Fatalf("a row that was decoded does not encode: %v", err)
		}
		other, _, err := oracle.NativeFromBinary(again)
		if err != nil {
			t.Fatal(err)
		}
		truncateMicros(native)
		truncateMicros(other)
		if !reflect.DeepEqual(native, other) {
			t.Fatalf("goavro reads %v\nand from our row %v", native, other)
		}
	})
}

// truncateMicros takes from goavro's native what a column in milliseconds cannot hold.
func truncateMicros(native any) {
	delete(native.(map[string]any), "ended")
}

// FuzzJSON: what the decoder accepts is JSON by the standard library, and reads back from our own encoding.
func FuzzJSON(f *testing.F) {
	s := trip(f)
	decoder, encoder := codecs(f, s, JSON)
	f.Add([]byte(goodTrip))
	f.Add([]byte(`{"id":1e5}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		row, err := decoder.Decode(t.Context(), record, nil)
		if err != nil {
			if class(err) == err.Error() {
				t.Fatalf("not a RecordError: %v", err)
			}
			return
		}
		if !json.Valid(record) {
			t.Fatalf("accepted: %q", record)
		}
		text, err := encoder.Encode(t.Context(), row)
		if err != nil {
			t.Fatalf("a row that was decoded does not encode: %v", err)
		}
		back, err := decoder.Decode(t.Context(), text, nil)
		if err != nil || !reflect.DeepEqual(back, row) {
			t.Fatalf("%s: %v", text, err)
		}
	})
}

// flatSchema has a column of every kind that the one-pass reader of JSON takes.
const flatSchema = `{"type":"record","name":"Flat","fields":[
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"n","type":"long"},{"name":"i","type":["null","int"]},
	{"name":"x","type":"double"},{"name":"r","type":"double","minimum":-1.5,"maximum":2},{"name":"s","type":"string"},{"name":"b","type":"boolean"},
	{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}}]}`

// FuzzFastJSON: what the one-pass reader takes, the one that reads everything takes too, and reads the same.
func FuzzFastJSON(f *testing.F) {
	s := mustParse(f, flatSchema)
	d := newJSONDecoder(s)
	const good = `{"at":"2001-02-03T04:05:06Z","n":-12,"i":null,"x":12.34,"r":2,"s":"é","b":true,"e":"B"}`
	row := make(Row, len(s.Columns))
	if !d.fast.decode([]byte(good), good, row) {
		f.Fatal("an ordinary record is left to the slow reader")
	}
	f.Add([]byte(good))
	f.Add([]byte(` { "n" : 0 , "at" : 1700000000000, "i":7,"x":-0.5,"r":-1.50,"s":"","b":false , "e":"A"} `))
	f.Add([]byte(`{"at":"2024-02-29T23:59:59.123+01:00","n":123456789012345678,"i":-1,"x":123456789.123456789,"r":0,"s":"a","b":true,"e":"A"}`))
	for _, at := range []string{"2023-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "1970-01-01T00:00:60Z", "0000-01-01T00:00:00Z"} {
		f.Add([]byte(strings.Replace(good, "2001-02-03T04:05:06Z", at, 1)))
	}
	for _, number := range []string{"01", "-", "1.", ".5", "1e3", "-0", "0.1", "9007199254740993", "1.7976931348623157e308", "0.30000000000000004", "3000000000"} {
		f.Add([]byte(strings.Replace(good, "12.34", number, 1)))
		f.Add([]byte(strings.Replace(good, "-12", number, 1)))
		f.Add([]byte(strings.Replace(good, "null", number, 1)))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		row := make(Row, len(s.Columns))
		if !d.fast.decode(record, string(record), row) {
			return
		}
		full, err := d.full(record, nil)
		if err != nil {
			t.Fatalf("%q: taken, but %v", record, err)
		}
		if !reflect.DeepEqual(row, full) {
			t.Fatalf("%q: read as %v, not %v", record, row, full)
		}
	})
}

// FuzzResolved: bytes written with a foreign, recursive schema never panic and never run away.
func FuzzResolved(f *testing.F) {
	s := mustParse(f, readerSchema)
	_, writer, err := parseNodes([]byte(`{"type":"record","name":"W","fields":[
		{"name":"tree","type":{"type":"record","name":"T","fields":[{"name":"e","type":{"type":"array","items":"null"}},{"name":"t","type":{"type":"array","items":"T"}},{"name":"m","type":{"type":"map","values":["null","T","double"]}}]}},
		{"name":"id","type":["null","string","int"]},{"name":"at","type":"long"},{"name":"amount","type":["int","double"]}]}`))
	if err != nil {
		f.Fatal(err)
	}
	p, err := resolve(writer, s)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 0, 2, 2, 'x', 2, 0, 2})
	f.Fuzz(func(t *testing.T, record []byte) {
		if row, err := p.decode(record, "", nil); err == nil && len(row) != len(s.Columns) {
			t.Fatalf("a row of %d columns", len(row))
		}
	})
}

// FuzzParse: no text makes Parse panic, and every schema it takes can be encoded with.
func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("testdata/trip.avsc")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(readerSchema)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse("fuzz", []byte(text))
		if err != nil {
			return
		}
		if again, err := Parse("fuzz", []byte(text)); err != nil || again.Canonical() != s.Canonical() {
			t.Fatalf("a second reading differs: %v", err)
		}
		if _, _, err := parseNodes([]byte(s.Canonical())); err != nil {
			t.Fatalf("the canonical form %s is not a schema: %v", s.Canonical(), err)
		}
	})
}

// FuzzPrediction: what is read as an event is written and read back as the same bytes.
func FuzzPrediction(f *testing.F) {
	value := 0.5
	b, err := Prediction{ID: "x", Inputs: []PredictionInput{{Name: "a", Value: &value}}, Entities: Texts{{"a", "b"}}}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := UnmarshalPrediction(b)
		if err != nil {
			return
		}
		first, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		back, err := UnmarshalPrediction(first)
		if err != nil {
			t.Fatal(err)
		}
		second, err := back.Marshal()
		if err != nil || string(first) != string(second) {
			t.Fatalf("%x\n%x, %v", first, second, err)
		}
	})
}
