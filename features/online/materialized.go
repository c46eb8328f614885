package online

import (
	"encoding/binary"
	"strconv"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// A materialized entity is a Redis hash beside its state: one field for each output of the group that has a value, as text, and two
// more for the time. No output's name begins with an underscore.
const (
	FieldAt     = "_at"     // the time that the values are of, RFC 3339
	FieldNewest = "_newest" // event time of the entity's newest event, RFC 3339
)

// A packed list of texts is what the script takes apart: for each its length in one byte, or, from longText on, that byte and the
// length in four more, big-endian; then its bytes. noText alone is no text.
const (
	longText = 254
	noText   = 255
)

// Fields is Batch.Fields of a group: the names of its outputs, and behind them those of the times.
func Fields(g *features.Group) []byte {
	var b []byte
	for i := range g.Outputs {
		b = appendPacked(b, g.Outputs[i].Name)
	}
	return appendPacked(appendPacked(b, FieldAt), FieldNewest)
}

// AppendValues appends to b one of Batch.Values: results in the order of the group's outputs, as of a time, of an entity whose newest
// event has that time, all Unix milliseconds. A result without a value is no field.
//
// A bool is "true" or "false", a number its shortest decimal text that reads back to the same number, a time RFC 3339, bytes are
// base64, a list or a map is JSON.
func AppendValues(b []byte, results []features.Result, at, newest int64) []byte {
	for i := range results {
		if results[i].Status != features.Present {
			b = append(b, noText)
			continue
		}
		b = appendValue(b, results[i].Value)
	}
	return appendTime(appendTime(b, at), newest)
}

func appendValue(b []byte, v schemas.Value) []byte {
	from := len(b)
	switch v.Kind() {
	case schemas.Int:
		b = strconv.AppendInt(append(b, 0), v.Int(), 10)
	case schemas.Float:
		f, _ := v.Float()
		b = strconv.AppendFloat(append(b, 0), f, 'g', -1, 64)
	case schemas.Time:
		return appendTime(b, v.Int())
	default:
		return appendPacked(b, v.Text())
	}
	b[from] = byte(len(b) - from - 1) // a number is far shorter than longText
	return b
}

func appendTime(b []byte, at int64) []byte {
	from := len(b)
	b = time.UnixMilli(at).UTC().AppendFormat(append(b, 0), time.RFC3339Nano)
	b[from] = byte(len(b) - from - 1)
	return b
}

func appendPacked(b []byte, text string) []byte {
	if len(text) < longText {
		b = append(b, byte(len(text)))
	} else {
		b = binary.BigEndian.AppendUint32(append(b, longText), uint32(len(text)))
	}
	return append(b, text...)
}
