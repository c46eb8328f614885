package schemas

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"sync"

	"github.com/millrace/millrace/internal/failure"
	"github.com/twmb/franz-go/pkg/sr"
)

// The Confluent wire format: a zero byte, the schema's id as four bytes big-endian, bare Avro binary.
const confluentHeader = 5

// maxWriterSchemas bounds how many writers' schemas a decoder remembers; beyond it, ids are looked up anew.
const maxWriterSchemas = 4096

// confluentDecoder reads records written with any schema of the registry that Avro can resolve to the project's.
type confluentDecoder struct {
	schema   *Schema
	registry *sr.Client

	mu      sync.RWMutex
	writers map[uint32]writer
}

// writer is a looked up schema: how to read it, or why it can never be read.
type writer struct {
	program *program
	failure *RecordError
	unknown bool // the registry has no such id
}

func (d *confluentDecoder) Decode(ctx context.Context, record []byte, row Row) (Row, error) {
	w, err := d.writerOf(ctx, record)
	if err != nil {
		return row[:0], err
	}
	return w.program.decode(record[confluentHeader:], "", row)
}

func (d *confluentDecoder) Borrow(ctx context.Context, record []byte, row Row) (Row, error) {
	w, err := d.writerOf(ctx, record)
	if err != nil {
		return row[:0], err
	}
	return w.program.decode(record[confluentHeader:], shared(record[confluentHeader:]), row)
}

// writerOf is the schema that the record was written with, one that can be read.
func (d *confluentDecoder) writerOf(ctx context.Context, record []byte) (writer, error) {
	if len(record) < confluentHeader || record[0] != 0 {
		return writer{}, recordError(ClassMalformed, "", "it does not begin with the Confluent wire format's zero byte and schema id")
	}
	w, err := d.writer(ctx, binary.BigEndian.Uint32(record[1:]))
	if err == nil && w.failure != nil {
		err = w.failure
	}
	return w, err
}

func (d *confluentDecoder) writer(ctx context.Context, id uint32) (writer, error) {
	d.mu.RLock()
	w, ok := d.writers[id]
	d.mu.RUnlock()
	if ok {
		return w, nil
	}
	w, err := d.lookUp(ctx, id)
	if err != nil {
		return writer{}, err
	}
	if w.unknown {
		return w, nil // not remembered: it may yet be registered
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.writers) >= maxWriterSchemas {
		clear(d.writers)
	}
	d.writers[id] = w
	return w, nil
}

// lookUp asks the registry. Its error is that of a registry which does not answer; a schema that is no use is in the writer.
func (d *confluentDecoder) lookUp(ctx context.Context, id uint32) (writer, error) {
	text, err := d.registry.SchemaByID(ctx, int(id))
	var answer *sr.ResponseError
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.ErrorCode == sr.ErrSchemaNotFound.Code {
		return writer{unknown: true, failure: recordError(ClassSchema, "", "the schema registry does not know schema %d", id)}, nil
	}
	if err != nil {
		return writer{}, failure.Wrap(failure.Unavailable, "schema registry", "looking up a schema", err)
	}
	if text.Type != sr.TypeAvro {
		return writer{failure: recordError(ClassSchema, "", "schema %d is %s, not Avro", id, text.Type)}, nil
	}
	if len(text.References) > 0 {
		return writer{failure: recordError(ClassSchema, "", "schema %d refers to other schemas, which is not supported", id)}, nil
	}
	_, root, err := parseNodes([]byte(text.Schema))
	if err != nil {
		return writer{failure: recordError(ClassSchema, "", "schema %d: %v", id, err)}, nil
	}
	p, err := resolve(root, d.schema)
	var failed *RecordError
	if errors.As(err, &failed) {
		return writer{failure: recordError(ClassSchema, failed.Path, "schema %d: %s", id, failed.Reason)}, nil
	}
	return writer{program: p}, nil
}

// confluentEncoder writes with the project's schema, registered under a subject when the first row is encoded.
type confluentEncoder struct {
	schema   *Schema
	registry *sr.Client
	subject  string

	mu     sync.Mutex
	header []byte // nil until registered
}

func (e *confluentEncoder) Encode(ctx context.Context, row Row) ([]byte, error) {
	header, err := e.register(ctx)
	if err != nil {
		return nil, err
	}
	return e.schema.appendAvro(append(make([]byte, 0, confluentHeader+16*len(row)), header...), row)
}

func (e *confluentEncoder) register(ctx context.Context) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.header != nil {
		return e.header, nil
	}
	id, err := e.registry.RegisterSchema(ctx, e.subject, sr.Schema{Schema: e.schema.source, Type: sr.TypeAvro}, -1, -1)
	var answer *sr.ResponseError
	if errors.As(err, &answer) && (answer.StatusCode == http.StatusConflict || answer.StatusCode == http.StatusUnprocessableEntity) {
		return nil, failure.Wrap(failure.BadProject, e.subject, "registering the schema", err)
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, e.subject, "registering the schema", err)
	}
	e.header = binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
	return e.header, nil
}
