package schemas

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/linkedin/goavro/v2"
	"github.com/millrace/millrace/internal/failure"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
	"golang.org/x/sync/errgroup"
)

const readerSchema = `{"type":"record","name":"R","fields":[
	{"name":"id","type":"string","aliases":["key"]},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"amount","type":"double"},
	{"name":"note","type":["null","string"],"default":null},
	{"name":"place","default":{"code":"none"},"type":{"type":"record","name":"P","fields":[
		{"name":"code","type":"string"},{"name":"rank","type":"int","default":7}]}}]}`

// registryWith serves a schema registry and a decoder that reads from it.
func registryWith(t *testing.T, opts ...sr.ClientOpt) (*srfake.Registry, *sr.Client, Decoder) {
	t.Helper()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	client, err := sr.NewClient(append(opts, sr.URLs(fake.URL()))...)
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(mustParse(t, readerSchema), Confluent, client)
	if err != nil {
		t.Fatal(err)
	}
	return fake, client, d
}

// write registers a writer's schema and writes a record with it through goavro.
func write(t *testing.T, client *sr.Client, subject, schema string, native map[string]any) []byte {
	t.Helper()
	id, err := client.RegisterSchema(t.Context(), subject, sr.Schema{Schema: schema}, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	record, err := codec.BinaryFromNative(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), native)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func TestConfluentResolvesTheWritersSchema(t *testing.T) {
	type m = map[string]any
	for name, c := range map[string]struct {
		schema string
		native m
		want   []any
	}{
		"reordered, promoted, with fields that are not ours": {
			`{"type":"record","name":"W","fields":[
				{"name":"amount","type":"int"},
				{"name":"tags","type":{"type":"array","items":"string"}},
				{"name":"extra","type":{"type":"map","values":["null",{"type":"record","name":"L","fields":[{"name":"v","type":"float"},{"name":"next","type":["null","L"]}]}]}},
				{"name":"at","type":"long"},
				{"name":"kind","type":{"type":"enum","name":"K","symbols":["A","B"]}},
				{"name":"h","type":{"type":"fixed","name":"H","size":3}},
				{"name":"key","type":"bytes"}]}`,
			m{"amount": 3, "tags": []any{"x", "yy"}, "extra": m{"a": nil, "b": goavro.Union("L", m{"v": 1.5, "next": goavro.Union("L", m{"v": 2.5, "next": nil})})},
				"at": 5000, "kind": "B", "h": []byte("abc"), "key": []byte("k1")},
			[]any{"k1", int64(5000), 3.0, nil, "none", int64(7)},
		},
		"micros, non-null where ours is nullable, record without a field": {
			`{"type":"record","name":"W","fields":[
				{"name":"id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"amount","type":"float"},
				{"name":"note","type":"string"},{"name":"place","type":{"type":"record","name":"P","fields":[{"name":"code","type":"string"}]}}]}`,
			m{"id": "a", "at": -1500, "amount": 0.5, "note": "hi", "place": m{"code": "ATL"}},
			[]any{"a", int64(-2), 0.5, "hi", "ATL", int64(7)},
		},
		"unions": {
			`{"type":"record","name":"W","fields":[
				{"name":"id","type":["int","string","null"]},{"name":"at","type":["null","long"]},{"name":"amount","type":["long","double"]},
				{"name":"note","type":["string","null"]},{"name":"place","type":["null",{"type":"record","name":"P","fields":[{"name":"rank","type":"int"},{"name":"code","type":"string"}]}]}]}`,
			m{"id": goavro.Union("string", "a"), "at": goavro.Union("long", 1), "amount": goavro.Union("long", 4), "note": nil,
				"place": goavro.Union("P", m{"rank": 2, "code": "LAX"})},
			[]any{"a", int64(1), 4.0, nil, "LAX", int64(2)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, decoder := registryWith(t)
			row, err := decoder.Decode(t.Context(), write(t, client, "s", c.schema, c.native), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := anys(row)
			got[1] = row[1].Int()
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestConfluentRefuses(t *testing.T) {
	type m = map[string]any
	field := func(name, typ string) string { return `{"name":"` + name + `","type":` + typ + `}` }
	rest := `,` + field("at", `"long"`) + `,` + field("amount", `"double"`)
	record := func(fields string) string { return `{"type":"record","name":"W","fields":[` + fields + `]}` }
	for name, c := range map[string]struct {
		schema              string
		native              m
		class, path, reason string
	}{
		"field is missing":   {record(field("id", `"string"`) + `,` + field("at", `"long"`)), m{"id": "a", "at": 1}, ClassSchema, "amount", "no default"},
		"another type":       {record(field("id", `"int"`) + rest), m{"id": 1, "at": 1, "amount": 1.0}, ClassSchema, "id", "written as int, which cannot be read as string"},
		"record for scalar":  {record(field("id", `{"type":"record","name":"X","fields":[{"name":"a","type":"int"}]}`) + rest), m{"id": m{"a": 1}, "at": 1, "amount": 1.0}, ClassSchema, "id", "record"},
		"scalar for record":  {record(field("id", `"string"`) + rest + `,` + field("place", `"int"`)), m{"id": "a", "at": 1, "amount": 1.0, "place": 1}, ClassSchema, "place", "not as a record"},
		"no branch of union": {record(field("id", `["int","long"]`) + rest), m{"id": goavro.Union("int", 1), "at": 1, "amount": 1.0}, ClassSchema, "id", "no type of the writer's union"},
		"null":               {record(field("id", `["null","string"]`) + rest), m{"id": nil, "at": 1, "amount": 1.0}, ClassMissing, "id", "not nullable"},
		"null of three":      {record(field("id", `["null","string","int"]`) + rest), m{"id": nil, "at": 1, "amount": 1.0}, ClassMissing, "id", "not nullable"},
		"wrong branch":       {record(field("id", `["null","string","int"]`) + rest), m{"id": goavro.Union("int", 1), "at": 1, "amount": 1.0}, ClassType, "id", "written as int"},
	} {
		t.Run(name, func(t *testing.T) {
			_, client, decoder := registryWith(t)
			_, err := decoder.Decode(t.Context(), write(t, client, "s", c.schema, c.native), nil)
			checkRecordError(t, err, c.class, c.path, c.reason)
		})
	}
	t.Run("header", func(t *testing.T) {
		_, _, decoder := registryWith(t)
		for _, record := range [][]byte{nil, {0, 0, 0, 1}, {1, 0, 0, 0, 1, 0}} {
			_, err := decoder.Decode(t.Context(), record, nil)
			checkRecordError(t, err, ClassMalformed, "", "wire format")
		}
	})
	t.Run("unknown id", func(t *testing.T) {
		_, _, decoder := registryWith(t)
		_, err := decoder.Decode(t.Context(), []byte{0, 0, 0, 0, 9, 0}, nil)
		checkRecordError(t, err, ClassSchema, "", "does not know schema 9")
	})
	t.Run("JSON schema", func(t *testing.T) {
		_, client, decoder := registryWith(t)
		id, err := client.RegisterSchema(t.Context(), "j", sr.Schema{Schema: `{"type":"object"}`, Type: sr.TypeJSON}, -1, -1)
		if err != nil {
			t.Fatal(err)
		}
		_, err = decoder.Decode(t.Context(), binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), nil)
		checkRecordError(t, err, ClassSchema, "", "not Avro")
	})
}

func TestConfluentRoundTripAsksTheRegistryOnce(t *testing.T) {
	var requests atomic.Int32
	_, client, decoder := registryWith(t, sr.PreReq(func(*http.Request) error { requests.Add(1); return nil }))
	encoder, err := NewEncoder(mustParse(t, readerSchema), Confluent, client, "r-value")
	if err != nil {
		t.Fatal(err)
	}
	want := Row{StringValue("a"), TimeValue(1), FloatValue(2), NullValue(), StringValue("ATL"), IntValue(1)}
	var row Row
	for range 5 {
		record, err := encoder.Encode(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		if row, err = decoder.Decode(t.Context(), record, row); err != nil || !reflect.DeepEqual(row, want) {
			t.Fatalf("%v, %v", anys(row), err)
		}
	}
	registered, err := client.SchemaByVersion(t.Context(), "r-value", -1)
	if err != nil || !strings.Contains(registered.Schema.Schema, "aliases") {
		t.Errorf("registered %q, %v: want the schema whole, with defaults and aliases", registered.Schema.Schema, err)
	}
	if n := requests.Load(); n > 4 {
		t.Errorf("%d requests for one schema", n)
	}
}

func TestRegistryOutageIsNoBadRecord(t *testing.T) {
	fake, client, decoder := registryWith(t, sr.HTTPClient(&http.Client{Timeout: 0}))
	encoder, err := NewEncoder(mustParse(t, readerSchema), Confluent, client, "r-value")
	if err != nil {
		t.Fatal(err)
	}
	fake.Close()
	if _, err := decoder.Decode(t.Context(), []byte{0, 0, 0, 0, 1, 0}, nil); failure.Of(err) != failure.Unavailable || failure.Of(err).DeadLetter() {
		t.Errorf("decoding without a registry: kind %v of %v", failure.Of(err), err)
	}
	if _, err := encoder.Encode(t.Context(), Row{StringValue("a"), TimeValue(1), FloatValue(2), NullValue(), StringValue("ATL"), IntValue(1)}); failure.Of(err) != failure.Unavailable {
		t.Errorf("encoding without a registry: kind %v of %v", failure.Of(err), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := decoder.Decode(ctx, []byte{0, 0, 0, 0, 1, 0}, nil); failure.Of(err).DeadLetter() {
		t.Errorf("a cancelled look-up is a dead letter: %v", err)
	}
}

func TestFormats(t *testing.T) {
	s := mustParse(t, readerSchema)
	for _, f := range []Format{Confluent, "protobuf", ""} {
		if _, err := NewDecoder(s, f, nil); failure.Of(err) != failure.BadProject {
			t.Errorf("NewDecoder(%q): %v", f, err)
		}
		if _, err := NewEncoder(s, f, nil, "x"); failure.Of(err) != failure.BadProject {
			t.Errorf("NewEncoder(%q): %v", f, err)
		}
	}
}

// Decoders and encoders are shared by the workers of a source; the race detector watches this.
func TestDecodersAreSharedByGoroutines(t *testing.T) {
	_, client, confluent := registryWith(t)
	s := mustParse(t, readerSchema)
	encoder, err := NewEncoder(s, Confluent, client, "shared")
	if err != nil {
		t.Fatal(err)
	}
	jsonDecoder, jsonEncoder := codecs(t, s, JSON)
	var group errgroup.Group
	for worker := range 4 {
		group.Go(func() error {
			for i := range 50 {
				want := Row{StringValue(fmt.Sprint(worker, i)), TimeValue(int64(i)), FloatValue(2), NullValue(), StringValue("ATL"), IntValue(1)}
				for _, c := range []struct {
					e Encoder
					d Decoder
				}{{encoder, confluent}, {jsonEncoder, jsonDecoder}} {
					record, err := c.e.Encode(t.Context(), want)
					if err != nil {
						return err
					}
					row, err := c.d.Decode(t.Context(), record, nil)
					if err != nil || !reflect.DeepEqual(row, want) {
						return fmt.Errorf("%v, %w", anys(row), err)
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
