package schemas

import (
	"bytes"
	"context"
	"testing"
)

// Any byte at any place of a text reads as it does by way of a tree, or is refused as there: texts are read eight bytes at a time.
func TestFastTextsReadAsTrees(t *testing.T) {
	s, err := Parse("t.avsc", []byte(`{"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": "string"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	d := newJSONDecoder(s)
	if d.fast == nil {
		t.Fatal("a flat schema is not read in one pass")
	}
	for b := range 256 {
		for length := range 20 {
			for at := range length {
				text := bytes.Repeat([]byte{'x'}, length)
				text[at] = byte(b)
				record := append(append([]byte(`{"a":"`), text...), `","b":"n"}`...)
				have, err := d.Decode(context.Background(), record, nil)
				want, must := d.full(record, nil)
				if (err == nil) != (must == nil) {
					t.Fatalf("%q: %v, by way of a tree %v", record, err, must)
				}
				if err == nil && (have[0] != want[0] || have[1] != want[1]) {
					t.Fatalf("%q: %v, by way of a tree %v", record, have, want)
				}
			}
		}
	}
}
