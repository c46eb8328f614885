package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const tiles = "../../features/script/testdata/feast_tiles.txtar"

func TestFeatureTests(t *testing.T) {
	t.Setenv("MILLRACE_KAFKA", "")
	t.Setenv("MILLRACE_REDIS", "")
	text, err := os.ReadFile(tiles)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.txtar")
	if err := os.WriteFile(wrong, bytes.Replace(text, []byte("max_10m=20"), []byte("max_10m=37"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--project ../../examples/flights", 0, "2 passed on the engine"},
		{tiles, 0, "1 passed on the engine"},
		{"--embedded " + tiles, 0, "1 passed on an embedded Kafka and Redis"},
		{tiles + " " + wrong, 1, "readings s: got 20, want max_10m=37"},
		{"--embedded " + wrong, 1, "readings s: got 20, want max_10m=37"},
		{"../../examples/flights/tests/origin_delays.txtar", 1, "the feature test carries no project"},
		{"--kafka 127.0.0.1:1 " + tiles, 64, "tests on servers need both"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"test"}, strings.Fields(c.args)...), &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("test %s: status %d, want %d and %q:\n%s", c.args, code, c.code, c.says, out.String())
		}
	}
}
