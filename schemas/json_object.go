package schemas

import "github.com/valyala/fastjson"

// ObjectDecoder reads rows from JSON objects as the decoder of a JSON topic does, also from objects that are parsed already. It is safe for
// concurrent use.
type ObjectDecoder struct {
	schema *Schema
	json   *jsonDecoder
}

// NewObjectDecoder makes the decoder of a schema. Where the schema has more columns than its records, those that are computed are, and
// those that are looked up are null.
func NewObjectDecoder(s *Schema) *ObjectDecoder {
	return &ObjectDecoder{schema: s, json: newJSONDecoder(s.Record())}
}

// Plain reads an object as most clients write it: flat, each field once, none absent, texts without escapes. ok is false for anything else,
// right or wrong: Decode must look. The row's texts are parts of object, which must not be changed while they are in use.
func (d *ObjectDecoder) Plain(object []byte, row Row) (_ Row, ok bool) {
	if d.json.fast == nil {
		return row, false
	}
	row = d.json.widen(row)
	if !d.json.fast.decode(object, shared(object), row) {
		return row, false
	}
	return d.whole(row), true
}

// Decode reads an object that is parsed. Its errors are those of Decoder.
func (d *ObjectDecoder) Decode(object *fastjson.Value, row Row) (Row, error) {
	row, err := d.json.tree(object, row)
	if err != nil {
		return row, err
	}
	return d.whole(row), nil
}

func (d *ObjectDecoder) whole(row Row) Row {
	if d.schema.record == nil {
		return row
	}
	return d.schema.Complete(row)
}
