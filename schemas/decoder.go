package schemas

import (
	"context"
	"unsafe"

	"github.com/millrace/millrace/internal/failure"
	"github.com/twmb/franz-go/pkg/sr"
)

// Format is how the records of a topic are written.
type Format string

// The formats.
const (
	Avro      Format = "avro"      // bare Avro binary, written with the schema in the project
	Confluent Format = "confluent" // Avro binary behind the Confluent wire format's magic byte and schema id
	JSON      Format = "json"      // a JSON object, checked against the Avro schema
)

// Decoder turns records into rows. It is safe for concurrent use.
type Decoder interface {
	// Decode appends the columns of a record to row[:0], in the schema's order. The row does not refer to record afterwards. A record that can never be decoded is a
	// *RecordError (kind BadRecord); a schema registry that does not answer is an error of kind Unavailable.
	Decode(ctx context.Context, record []byte, row Row) (Row, error)

	// Borrow is Decode without a copy of the texts: the row's are parts of record. It is good until record is changed, and
	// a text that is kept longer than the row keeps all of record's memory (with Kafka, that of a fetch).
	Borrow(ctx context.Context, record []byte, row Row) (Row, error)
}

// shared is the bytes as a string, without a copy. They must not be changed while it is in use.
func shared(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Encoder turns rows into records. It is safe for concurrent use.
type Encoder interface {
	// Encode writes a row whose values have the kinds of the schema's columns; anything else is a *RecordError.
	Encode(ctx context.Context, row Row) ([]byte, error)
}

// NewDecoder makes the decoder of a format. The registry is needed for Confluent only. Where the schema has more columns than its records,
// those that are computed are, and those that are looked up are null.
func NewDecoder(s *Schema, f Format, registry *sr.Client) (Decoder, error) {
	if s.record != nil {
		d, err := NewDecoder(s.record, f, registry)
		return completing{d, s}, err
	}
	switch f {
	case Avro:
		return avroDecoder{s.own}, nil
	case JSON:
		return newJSONDecoder(s), nil
	case Confluent:
		if registry == nil {
			return nil, noRegistry(s)
		}
		return &confluentDecoder{schema: s, registry: registry, writers: map[uint32]writer{}}, nil
	default:
		return nil, unknownFormat(s, f)
	}
}

// NewEncoder makes the encoder of a format. Registry and subject are needed for Confluent only: the schema is registered under the
// subject when the first row is encoded. Only the columns that records have are written.
func NewEncoder(s *Schema, f Format, registry *sr.Client, subject string) (Encoder, error) {
	if s.record != nil {
		e, err := NewEncoder(s.record, f, registry, subject)
		return recording{e, len(s.record.Columns)}, err
	}
	switch f {
	case Avro:
		return avroEncoder{s}, nil
	case JSON:
		return jsonEncoder{s}, nil
	case Confluent:
		if registry == nil {
			return nil, noRegistry(s)
		}
		return &confluentEncoder{schema: s, registry: registry, subject: subject}, nil
	default:
		return nil, unknownFormat(s, f)
	}
}

func noRegistry(s *Schema) error {
	return failure.New(failure.BadProject, s.Name, "the confluent format needs a schema registry").
		WithHint("give its URL, or say format: avro for records without a schema id")
}

func unknownFormat(s *Schema, f Format) error {
	return failure.New(failure.BadProject, s.Name, "unknown format %q", string(f)).WithHint("it is one of avro, confluent, json")
}
