package schemas

import "testing"

// The vectors are those of fastavro, which reads the fingerprints of the Java library.
func TestFingerprint(t *testing.T) {
	for text, want := range map[string]uint64{
		`"null"`: 0x63dd24e7cc258f8a, `"int"`: 0x7275d51a3f395c8f, `"long"`: 0xd054e14493f41db7, `"string"`: 0x8f014872634503c7,
		`{"name":"foo","type":"record","fields":[]}`: 0xbd0c50c84319be7e,
	} {
		if got := fingerprint(text); got != want {
			t.Errorf("fingerprint(%s) = %#x, want %#x", text, got, want)
		}
	}
}

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{
		`{"type":"int"}`: `"int"`,
		`["null", {"type":"array","items":{"type":"map","values":{"type":"long","logicalType":"timestamp-millis"}}}]`: `["null",{"type":"array","items":{"type":"map","values":"long"}}]`,
		`{"fields":[{"type":{"size":4,"namespace":"x.y","type":"fixed","name":"F"},"doc":"d","name":"a","default":"\u0000\u0000\u0000\u0000"},{"name":"b","type":"x.y.F"},
		  {"name":"c","type":{"type":"enum","name":"E","doc":"d","symbols":["P","Q"]}},{"name":"d","type":["null","N.R"]}],"type":"record","name":"R","namespace":"N","aliases":["S"]}`: `{"name":"N.R","type":"record","fields":[{"name":"a","type":{"name":"x.y.F","type":"fixed","size":4}},{"name":"b","type":"x.y.F"},{"name":"c","type":{"name":"N.E","type":"enum","symbols":["P","Q"]}},{"name":"d","type":["null","N.R"]}]}`,
	} {
		got, _, err := parseNodes([]byte(text))
		if err != nil || got != want {
			t.Errorf("canonical form of %s:\ngot  %s, %v\nwant %s", text, got, err, want)
		}
	}
}
