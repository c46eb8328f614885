package schemas

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// ParseText reads a value of a kind from what Value.Text writes. Null is the value that has no text; a text of kind Null is an error.
func ParseText(text string, kind Kind) (v Value, err error) {
	switch kind {
	case Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v = BoolValue(b)
	case Int:
		var i int64
		i, err = strconv.ParseInt(text, 10, 64)
		v = IntValue(i)
	case Float:
		var f float64
		f, err = strconv.ParseFloat(text, 64)
		v = FloatValue(f)
	case Time:
		var t time.Time
		t, err = time.Parse(time.RFC3339Nano, text)
		v = TimeValue(t.UnixMilli())
	case Bytes:
		var b []byte
		b, err = base64.StdEncoding.DecodeString(text)
		v = BytesValue(string(b))
	case String:
		v = StringValue(text)
	case Composite:
		v = CompositeValue(text)
	default:
		err = errors.New("null has no text")
	}
	if err != nil {
		var number *strconv.NumError
		if errors.As(err, &number) {
			err = number.Err
		}
		return NullValue(), fmt.Errorf("%q is no %s: %w", text, kind, err)
	}
	return v, nil
}
