package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/millrace/millrace/internal/failure"
)

// The oracle of bare Avro is goavro: what it writes we read as the same values, and what we write is byte for byte the same.

// randomRecord makes a schema of the supported shapes, as JSON, and the fields' natives as goavro takes them.
type randomRecord struct {
	r     *rand.Rand
	types int
}

func (g *randomRecord) schema(depth int) map[string]any {
	g.types++
	record := map[string]any{"type": "record", "name": fmt.Sprintf("R%d", g.types)}
	var fields []any
	for i := range 1 + g.r.IntN(6) {
		f := map[string]any{"name": fmt.Sprintf("f%d", i)}
		if depth < 3 && g.r.IntN(5) == 0 {
			f["type"] = g.schema(depth + 1)
		} else {
			f["type"] = g.scalar()
			switch g.r.IntN(4) {
			case 0:
				f["type"] = []any{"null", f["type"]}
			case 1:
				f["type"] = []any{f["type"], "null"}
			}
		}
		fields = append(fields, f)
	}
	record["fields"] = fields
	return record
}

func (g *randomRecord) scalar() any {
	g.types++
	return []any{
		"boolean", "int", "long", "float", "double", "string", "bytes",
		map[string]any{"type": "enum", "name": fmt.Sprintf("E%d", g.types), "symbols": []any{"A", "B", "C"}},
		map[string]any{"type": "fixed", "name": fmt.Sprintf("F%d", g.types), "size": 5},
		map[string]any{"type": "long", "logicalType": "timestamp-millis"},
		map[string]any{"type": "long", "logicalType": "timestamp-micros"},
	}[g.r.IntN(11)]
}

// value makes a native of a type and appends the values that columns must have.
func (g *randomRecord) value(tree any, want *[]any) any {
	switch t := tree.(type) {
	case []any:
		scalar := t[0]
		if scalar == "null" {
			scalar = t[1]
		}
		if g.r.IntN(3) == 0 {
			*want = append(*want, nil)
			return nil
		}
		return goavro.Union(unionName(scalar), g.value(scalar, want))
	case map[string]any:
		switch t["type"] {
		case "record":
			out := map[string]any{}
			for _, f := range t["fields"].([]any) {
				out[f.(map[string]any)["name"].(string)] = g.value(f.(map[string]any)["type"], want)
			}
			return out
		case "enum":
			s := t["symbols"].([]any)[g.r.IntN(3)].(string)
			*want = append(*want, s)
			return s
		case "fixed":
			b := g.bytes(5)
			*want = append(*want, b)
			return b
		}
		at := time.UnixMilli(g.r.Int64N(8e12) - 4e12).UTC()
		*want = append(*want, at)
		return at
	}
	v := g.primitive(tree.(string))
	switch p := v.(type) {
	case int32:
		*want = append(*want, int64(p))
	case float32:
		*want = append(*want, float64(p))
	default:
		*want = append(*want, v)
	}
	return v
}

func (g *randomRecord) primitive(name string) any {
	switch name {
	case "boolean":
		return g.r.IntN(2) == 0
	case "int":
		return int32(g.r.Uint32()) >> g.r.IntN(32)
	case "long":
		return int64(g.r.Uint64()) >> g.r.IntN(64)
	case "float":
		return float32(g.r.NormFloat64())
	case "double":
		return g.r.NormFloat64() * math.Pow(10, float64(g.r.IntN(40)-20))
	case "string":
		return strings.Repeat("aé世", g.r.IntN(50))
	default:
		return g.bytes(g.r.IntN(100))
	}
}

func (g *randomRecord) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

func unionName(tree any) string {
	t, ok := tree.(map[string]any)
	if !ok {
		return tree.(string)
	}
	if name, ok := t["name"].(string); ok {
		return name
	}
	return "long." + t["logicalType"].(string)
}

// shortTypes mends the one place where goavro's canonical form is not the specification's.
var shortTypes = strings.NewReplacer(`{"type":"long"}`, `"long"`)

func TestAvroAgreesWithGoavro(t *testing.T) {
	g := &randomRecord{r: rand.New(rand.NewPCG(1, 2))}
	for range 150 {
		tree := g.schema(0)
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		oracle, err := goavro.NewCodec(string(text))
		if err != nil {
			t.Fatal(err)
		}
		s := mustParse(t, string(text))
		if want := shortTypes.Replace(oracle.CanonicalSchema()); s.Canonical() != want {
			t.Fatalf("canonical form of %s:\ngot  %s\nwant %s", text, s.Canonical(), want)
		}
		decoder, encoder := codecs(t, s, Avro)
		var row Row
		for range 10 {
			var want []any
			native := g.value(tree, &want)
			record, err := oracle.BinaryFromNative(nil, native)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			row, err = decoder.Decode(t.Context(), record, row)
			if err != nil {
				t.Fatalf("decoding %v of %s: %v", native, text, err)
			}
			if got := anys(row); !reflect.DeepEqual(got, want) {
				t.Fatalf("%s:\ngot  %v\nwant %v", text, got, want)
			}
			back, err := encoder.Encode(t.Context(), row)
			if err != nil || !bytes.Equal(back, record) {
				t.Fatalf("encoding %v of %s: %v\ngot  %x\nwant %x", want, text, err, back, record)
			}
			for cut := range record {
				if _, err := decoder.Decode(t.Context(), record[:cut], nil); class(err) != ClassMalformed {
					t.Fatalf("%d of %d bytes of %s decode: %v", cut, len(record), text, err)
				}
			}
		}
	}
}

func codecs(t testing.TB, s *Schema, f Format) (Decoder, Encoder) {
	t.Helper()
	d, err := NewDecoder(s, f, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEncoder(s, f, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return d, e
}

func anys(row Row) []any {
	var out []any
	for _, v := range row {
		out = append(out, v.Any())
	}
	return out
}

func class(err error) string {
	var r *RecordError
	if !errors.As(err, &r) {
		return fmt.Sprintf("%v", err)
	}
	return r.Class
}

// tripRow is a row of testdata/trip.avsc that keeps every rule.
func tripRow() Row {
	return Row{
		StringValue("t1"), TimeValue(990360000000), NullValue(), IntValue(3), IntValue(1 << 40), FloatValue(0.5), FloatValue(12.25), BoolValue(true),
		StringValue("SECOND"), StringValue("FIRST"), BytesValue("\x00\xff"), BytesValue("abcd"),
		StringValue("ATL"), FloatValue(33.6), FloatValue(-84.4), StringValue("LAX"), FloatValue(33.9), NullValue(),
	}
}

func TestEncodeRefuses(t *testing.T) {
	s := trip(t)
	for _, c := range []struct {
		column string
		value  Value
		class  string
		reason string
	}{
		{"id", NullValue(), ClassMissing, "not nullable"},
		{"id", IntValue(1), ClassType, "a int where a string must be"},
		{"id", StringValue("\xff"), ClassMalformed, "not UTF-8"},
		{"started", TimeValue(MaxTime + 1), ClassRange, "outside the years 1 to 9999"},
		{"ended", TimeValue(math.MinInt64), ClassRange, "outside the years 1 to 9999"},
		{"seats", IntValue(-1), ClassRange, "-1 is below the minimum 0"},
		{"seats", IntValue(501), ClassRange, "501 is above the maximum 500"},
		{"seats", IntValue(1 << 31), ClassRange, "does not fit 32 bits"},
		{"speed", FloatValue(1e300), ClassRange, "does not fit 32 bits"},
		{"fare", FloatValue(math.NaN()), ClassRange, "NaN is not a finite number"},
		{"fare", FloatValue(-0.5), ClassRange, "-0.5 is below the minimum 0"},
		{"class", StringValue("THIRD"), ClassUnknown, "not one of the symbols"},
		{"hash", BytesValue("abc"), ClassRange, "3 bytes where 4 must be"},
		{"to.position.lat", FloatValue(91), ClassRange, "91 is above the maximum 90"},
	} {
		for _, f := range []Format{Avro, JSON} {
			_, encoder := codecs(t, s, f)
			row := tripRow()
			row[s.Index(c.column)] = c.value
			_, err := encoder.Encode(t.Context(), row)
			checkRecordError(t, err, c.class, c.column, c.reason)
		}
	}
	for _, f := range []Format{Avro, JSON} {
		_, encoder := codecs(t, s, f)
		_, err := encoder.Encode(t.Context(), tripRow()[1:])
		checkRecordError(t, err, ClassMalformed, "", "17 columns, the schema 18")
	}
}

func TestRangesIncludeTheirBounds(t *testing.T) {
	s := trip(t)
	for _, f := range []Format{Avro, JSON} {
		decoder, encoder := codecs(t, s, f)
		for _, seats := range []int64{0, 500} {
			row := tripRow()
			row[s.Index("seats")], row[s.Index("fare")], row[s.Index("started")] = IntValue(seats), FloatValue(0), TimeValue(MaxTime)
			record, err := encoder.Encode(t.Context(), row)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if back, err := decoder.Decode(t.Context(), record, nil); err != nil || !reflect.DeepEqual(back, row) {
				t.Errorf("%s: %v, %v", f, anys(back), err)
			}
		}
	}
}

func checkRecordError(t *testing.T, err error, class, path, reason string) {
	t.Helper()
	var r *RecordError
	if !errors.As(err, &r) || r.Class != class || r.Path != path || !strings.Contains(r.Reason, reason) {
		t.Errorf("error is %v, want class %s, path %q, reason %q", err, class, path, reason)
		return
	}
	if failure.Of(err) != failure.BadRecord || failure.Of(fmt.Errorf("decoding record: %w", err)) != failure.BadRecord {
		t.Errorf("%v is not of kind BadRecord", err)
	}
}

func TestAvroDecodeRefuses(t *testing.T) {
	s := mustParse(t, `{"type":"record","name":"R","fields":[
		{"name":"b","type":"boolean"},{"name":"i","type":"int","minimum":0},{"name":"s","type":"string"},{"name":"n","type":["null","double"]},
		{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]}}]}`)
	decoder, _ := codecs(t, s, Avro)
	good := []byte{1, 4, 2, 'x', 0, 0}
	if row, err := decoder.Decode(t.Context(), good, nil); err != nil || !reflect.DeepEqual(anys(row), []any{true, int64(2), "x", nil, "A"}) {
		t.Fatalf("the good record: %v, %v", anys(row), err)
	}
	for name, c := range map[string]struct {
		record []byte
		class  string
		path   string
	}{
		"empty":           {nil, ClassMalformed, "b"},
		"boolean of 2":    {[]byte{2, 4, 2, 'x', 0, 0}, ClassMalformed, "b"},
		"int of 33 bits":  {[]byte{1, 0x80, 0x80, 0x80, 0x80, 0x20, 2, 'x', 0, 0}, ClassMalformed, "i"},
		"endless varint":  {append([]byte{1}, bytes.Repeat([]byte{0x80}, 20)...), ClassMalformed, "i"},
		"below minimum":   {[]byte{1, 1, 2, 'x', 0, 0}, ClassRange, "i"},
		"negative length": {[]byte{1, 4, 1, 'x', 0, 0}, ClassMalformed, "s"},
		"too long text":   {[]byte{1, 4, 60, 'x', 0, 0}, ClassMalformed, "s"},
		"not UTF-8":       {[]byte{1, 4, 2, 0xff, 0, 0}, ClassMalformed, "s"},
		"no such branch":  {[]byte{1, 4, 2, 'x', 4, 0}, ClassMalformed, "n"},
		"not finite":      {[]byte{1, 4, 2, 'x', 2, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f, 0}, ClassRange, "n"},
		"no such symbol":  {[]byte{1, 4, 2, 'x', 0, 2}, ClassMalformed, "e"},
		"trailing bytes":  {append(good[:len(good):len(good)], 0), ClassMalformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decoder.Decode(t.Context(), c.record, nil)
			checkRecordError(t, err, c.class, c.path, "")
		})
	}
}

func TestDecodedRowsDoNotReferToTheRecord(t *testing.T) {
	for _, size := range []int{10, 5000} {
		s := mustParse(t, `{"type":"record","name":"R","fields":[{"name":"s","type":"string"},{"name":"b","type":"bytes"}]}`)
		want := strings.Repeat("x", size)
		for _, f := range []Format{Avro, JSON} {
			decoder, encoder := codecs(t, s, f)
			record, err := encoder.Encode(t.Context(), Row{StringValue(want), BytesValue(want)})
			if err != nil {
				t.Fatal(err)
			}
			row, err := decoder.Decode(t.Context(), record, nil)
			if err != nil {
				t.Fatal(err)
			}
			clear(record)
			if _, err := decoder.Decode(t.Context(), bytes.Repeat([]byte("["), size), nil); err == nil {
				t.Fatal("nonsense decodes")
			}
			if row[0].Str() != want || row[1].Str() != want {
				t.Errorf("%s, %d bytes: the row changed with the record", f, size)
			}
		}
	}
}

func TestDecodeTakesNoMoreThanOneAllocation(t *testing.T) {
	s := trip(t)
	decoder, encoder := codecs(t, s, Avro)
	record, err := encoder.Encode(t.Context(), tripRow())
	if err != nil {
		t.Fatal(err)
	}
	row := make(Row, 0, len(s.Columns))
	if n := testing.AllocsPerRun(100, func() { row, _ = decoder.Decode(t.Context(), record, row) }); n > 1 {
		t.Errorf("decoding a small record allocates %v times", n)
	}
}

func BenchmarkAvroDecode(b *testing.B) {
	s := trip(b)
	decoder, encoder := codecs(b, s, Avro)
	record, _ := encoder.Encode(b.Context(), tripRow())
	b.Run("ours", func(b *testing.B) {
		var row Row
		b.ReportAllocs()
		for b.Loop() {
			row, _ = decoder.Decode(b.Context(), record, row)
		}
	})
	b.Run("goavro", func(b *testing.B) {
		codec, _ := goavro.NewCodec(s.source)
		b.ReportAllocs()
		for b.Loop() {
			codec.NativeFromBinary(record)
		}
	})
}
