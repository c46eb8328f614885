package schemas

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
)

// fill sets everything below v to something other than zero.
func fill(r *rand.Rand, v reflect.Value) {
	if v.Type() == reflect.TypeFor[Texts]() {
		v.Set(reflect.ValueOf(Texts{{"a", "x"}, {"b", ""}, {"é", "héllo"}}))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 4))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"b", "a", "é"} {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(r, value)
			v.SetMapIndex(reflect.ValueOf(key), value)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.String:
		v.SetString([]string{"x", "ATL", "héllo"}[r.IntN(3)])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(r.NormFloat64())
	default:
		v.SetInt(1 + r.Int64N(1<<30))
	}
}

// plain reduces goavro's natives and decoded JSON to the same thing.
func plain(v any) any {
	switch t := v.(type) {
	case time.Time:
		return float64(t.UnixMilli())
	case int32:
		return float64(t)
	case int64:
		return float64(t)
	case []any:
		out := []any{}
		for _, e := range t {
			out = append(out, plain(e))
		}
		return out
	case map[string]any:
		if value, union := t["double"]; union && len(t) == 1 {
			return value
		}
		out := map[string]any{}
		for k, e := range t {
			out[k] = plain(e)
		}
		return out
	default:
		return v
	}
}

// ownEvent is what every event of ours can do.
type ownEvent interface{ Marshal() ([]byte, error) }

func testEvent[E ownEvent](t *testing.T, file, fingerprint string, unmarshal func([]byte) (E, error)) {
	t.Run(file, func(t *testing.T) {
		text, err := avsc.ReadFile("avsc/" + file)
		if err != nil {
			t.Fatal(err)
		}
		oracle, err := goavro.NewCodec(string(text))
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 4))
		var event E
		for i := range 20 {
			if i > 0 {
				fill(r, reflect.ValueOf(&event).Elem())
			}
			b, err := event.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := event.Marshal(); !bytes.Equal(b, again) {
				t.Fatal("equal events give different bytes")
			}
			back, err := unmarshal(b)
			if err != nil || !reflect.DeepEqual(back, event) {
				t.Fatalf("back is %+v, %v\nwant    %+v", back, err, event)
			}
			if hex.EncodeToString(b[:10]) != "c301"+fingerprint {
				t.Fatalf("the header is %x, want the fingerprint %s", b[:10], fingerprint)
			}
			native, rest, err := oracle.NativeFromBinary(b[10:])
			if err != nil || len(rest) > 0 {
				t.Fatalf("goavro: %v, %d bytes left", err, len(rest))
			}
			if i > 0 { // the zero event's nil lists are null in JSON, empty in Avro
				compareJSON(t, event, native)
			}
			for cut := range b {
				if _, err := unmarshal(b[:cut]); class(err) != ClassMalformed {
					t.Fatalf("%d of %d bytes: %v", cut, len(b), err)
				}
			}
			b[5]++
			if _, err := unmarshal(b); class(err) != ClassSchema {
				t.Fatalf("another fingerprint: %v", err)
			}
		}
	})
}

func compareJSON(t *testing.T, event, native any) {
	t.Helper()
	text, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	var want any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	if got := plain(native); !reflect.DeepEqual(got, want) {
		t.Fatalf("goavro reads %v\nJSON has     %v", got, want)
	}
}

// The oracles are goavro for the binary and fastavro for the fingerprints.
func TestEvents(t *testing.T) {
	testEvent(t, "prediction.avsc", "7a79a7b66a83734c", UnmarshalPrediction)
	testEvent(t, "drift.avsc", "d5fc044d466952ad", UnmarshalDrift)
	testEvent(t, "retrain.avsc", "cf00cf859bd6ebf3", UnmarshalRetrain)
	testEvent(t, "model.avsc", "b739a82b3bc3ddf9", UnmarshalModelEvent)
}

// What goavro writes by a schema of before is read: fields by their names, those that there were not yet as nothing.
func TestEarlierPredictionsAreRead(t *testing.T) {
	text, err := avsc.ReadFile("avsc/earlier/prediction-1.avsc")
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(string(text))
	if err != nil {
		t.Fatal(err)
	}
	header, _ := hex.DecodeString("c301f695a921b0ef63ef") // fastavro's fingerprint of it
	b, err := codec.BinaryFromNative(header, map[string]any{
		"id": "late/departures/3/7", "model": "late", "digest": "sha256:1", "version": 2, "at": 5, "scored_at": 6, "join_key": "x1",
		"entities": map[string]any{"origin": "ORD"}, "request": map[string]any{"distance": "733"}, "score": 0.25, "refused": false,
		"rung": "previous", "reason": "deadline",
		"inputs":    []any{map[string]any{"name": "distance", "value": map[string]any{"double": 733.0}, "status": "present", "event_time": 4}},
		"positions": []any{}, "reasons": []any{map[string]any{"input": "distance", "value": -0.5}}, "reason_method": "saabas",
		"latency_micros": 9, "source": "departures/3/7",
	})
	if err != nil {
		t.Fatal(err)
	}
	distance := 733.0
	want := Prediction{
		ID: "late/departures/3/7", Model: "late", Digest: "sha256:1", Version: 2, At: 5, ScoredAt: 6, JoinKey: "x1",
		Entities: Texts{{"origin", "ORD"}}, Request: Texts{{"distance", "733"}}, Score: 0.25, Rung: RungPrevious, Reason: "deadline",
		Inputs:  []PredictionInput{{Name: "distance", Value: &distance, Status: "present", EventTime: 4}},
		Reasons: []Contribution{{Input: "distance", Value: -0.5}}, ReasonMethod: "saabas", LatencyMicros: 9, Source: "departures/3/7",
	}
	if got, err := UnmarshalPrediction(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %v\nwant    %+v", got, err, want)
	}
}

func TestEventsRefuseTextThatIsNotUTF8(t *testing.T) {
	if _, err := (Retrain{Reason: "\xff"}).Marshal(); class(err) != ClassMalformed {
		t.Errorf("error is %v", err)
	}
}

func TestEventCodecRefusesAnotherStruct(t *testing.T) {
	text := []byte(`{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}`)
	type other struct {
		B int64 `json:"b"`
	}
	type wrong struct {
		A string `json:"a"`
	}
	if _, err := newEventCodec[other](text); err == nil {
		t.Error("a struct without the field is taken")
	}
	if _, err := newEventCodec[wrong](text); err == nil {
		t.Error("a struct whose field has another type is taken")
	}
}

func TestBinJSON(t *testing.T) {
	for text, bin := range map[string]Bin{
		`{"low":null,"high":1,"share":0.5}`:  {math.Inf(-1), 1, 0.5},
		`{"low":1,"high":null,"share":0.25}`: {1, math.Inf(1), 0.25},
		`{"low":-1,"high":2,"share":0}`:      {-1, 2, 0},
	} {
		got, err := json.Marshal(bin)
		if err != nil || string(got) != text {
			t.Errorf("Marshal(%v) = %s, %v", bin, got, err)
		}
		var back Bin
		if err := json.Unmarshal(got, &back); err != nil || back != bin {
			t.Errorf("Unmarshal(%s) = %v, %v", got, back, err)
		}
	}
}

func BenchmarkPrediction(b *testing.B) {
	event := Prediction{ID: "late/departures/0/1", Model: "late", Digest: "sha256:0123", JoinKey: "f1", Rung: RungPrimary,
		Entities: Texts{{"origin", "ATL"}}, Request: Texts{{"destination", "LAX"}, {"origin", "ATL"}}}
	for range 64 {
		value := 1.5
		event.Inputs = append(event.Inputs, PredictionInput{Name: "origin_delays.delay_mean_24h", Value: &value, Status: "present", EventTime: 1})
	}
	encoded, err := event.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	text, _ := avsc.ReadFile("avsc/prediction.avsc")
	codec, err := goavro.NewCodec(string(text))
	if err != nil {
		b.Fatal(err)
	}
	native, _, _ := codec.NativeFromBinary(encoded[10:])
	b.Run("marshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			event.Marshal()
		}
	})
	b.Run("goavro marshal of a ready map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			codec.BinaryFromNative(nil, native)
		}
	})
	b.Run("unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			UnmarshalPrediction(encoded)
		}
	})
	b.Run("goavro unmarshal to a map", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			codec.NativeFromBinary(encoded[10:])
		}
	})
}

func TestTexts(t *testing.T) {
	texts := Texts{{"a", "1"}, {"b", ""}, {"é", "x"}}
	for name, want := range map[string]string{"a": "1", "b": "", "é": "x"} {
		if got, ok := texts.Get(name); !ok || got != want {
			t.Errorf("%s is %q, %v", name, got, ok)
		}
	}
	if text, ok := texts.Get("c"); ok {
		t.Errorf("there is no c, and Get gives %q", text)
	}
	var back Texts
	if err := json.Unmarshal([]byte(`{"é":"x","b":"","a":"1"}`), &back); err != nil || !reflect.DeepEqual(back, texts) {
		t.Errorf("%v, %v", back, err)
	}
	// A writer of another kind need not keep the order.
	codec, err := newEventCodec[struct {
		Texts Texts `json:"texts"`
	}]([]byte(`{"type":"record","name":"T","fields":[{"name":"texts","type":{"type":"map","values":"string"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var event struct {
		Texts Texts `json:"texts"`
	}
	if err := codec.decode(append(codec.header, 4, 2, 'b', 2, 'y', 2, 'a', 2, 'x', 0), &event); err != nil || !reflect.DeepEqual(event.Texts, Texts{{"a", "x"}, {"b", "y"}}) {
		t.Errorf("%v, %v", event.Texts, err)
	}
}
