package schemas

import (
	"encoding/json"
	"os"
	"reflect"
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
		if row, err := p.decode(record, nil); err == nil && len(row) != len(s.Columns) {
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
	b, err := Prediction{ID: "x", Inputs: []PredictionInput{{Name: "a", Value: &value}}, Entities: map[string]string{"a": "b"}}.Marshal()
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
