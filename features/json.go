package features

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/millrace/millrace/schemas"
)

// appendJSON appends a value as JSON, times and bytes as their canonical text.
func appendJSON(b []byte, v schemas.Value) []byte {
	switch v.Kind() {
	case schemas.Null:
		return append(b, "null"...)
	case schemas.Bool, schemas.Int:
		return append(b, v.Text()...)
	case schemas.Float:
		f, _ := v.Float()
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	default:
		return appendJSONText(b, v.Text())
	}
}

// appendJSONText appends a text as JSON; what is not UTF-8 in it is replaced.
func appendJSONText(b []byte, text string) []byte {
	var quoted bytes.Buffer
	e := json.NewEncoder(&quoted)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a text has no error
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}
