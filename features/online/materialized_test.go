package online_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// outputs is a group of that many outputs, f0, f1 …
func outputs(n int) *features.Group {
	g := &features.Group{}
	for i := range n {
		g.Outputs = append(g.Outputs, features.Output{Name: fmt.Sprint("f", i)})
	}
	return g
}

func present(v schemas.Value) features.Result {
	return features.Result{Value: v, Status: features.Present}
}

func TestHashesGoWithTheStates(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), group(t)
	w := online.NewWriter(client, "shop", name, "v1")
	g := outputs(6)
	long := strings.Repeat("é", 300) + "\x00\n"
	const at, newest = 1_700_000_000_123, 1_700_000_000_000
	values := func(results ...features.Result) []byte { return online.AppendValues(nil, results, at, newest) }
	batch := func(expected []byte, next int64, key string, values []byte) online.Batch {
		return online.Batch{
			Expected: expected, Next: online.Position{Next: next}, Keys: []string{key}, States: [][]byte{[]byte("state")},
			Fields: online.Fields(g), Values: [][]byte{values},
		}
	}
	expect := func(what, key string, want map[string]string) {
		t.Helper()
		got, err := client.HGetAll(ctx, online.HashKey("shop", name, "v1", 2, key)).Result()
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", what, got, err, want)
		}
	}
	null := features.Result{Status: features.Null}

	first, err := w.Write(ctx, 2, batch(nil, 1, "a", values(present(schemas.IntValue(-12)), present(schemas.FloatValue(0.1)), present(schemas.StringValue("")),
		present(schemas.BoolValue(true)), present(schemas.TimeValue(1_000)), present(schemas.StringValue(long)))))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"f0": "-12", "f1": "0.1", "f2": "", "f3": "true", "f4": "1970-01-01T00:00:01Z", "f5": long,
		"_at": "2023-11-14T22:13:20.123Z", "_newest": "2023-11-14T22:13:20Z",
	}
	expect("the first", "a", want)

	if _, err := w.Write(ctx, 2, batch(nil, 1, "a", values(null, null, null, null, null, null))); failure.Of(err) != failure.Conflict {
		t.Fatalf("a write onto another position: %v, want Conflict", err)
	}
	expect("after a conflict", "a", want)

	second, err := w.Write(ctx, 2, batch(first, 2, "a", values(null, present(schemas.FloatValue(1e21)), null, null, features.Result{Status: features.Overflow}, present(schemas.StringValue("x")))))
	if err != nil {
		t.Fatal(err)
	}
	want = map[string]string{"f1": "1e+21", "f5": "x", "_at": want["_at"], "_newest": want["_newest"]}
	expect("nulls are no fields", "a", want)

	third := batch(second, 3, "b", values(null, null, null, null, null, null))
	third.TTL = time.Hour
	if _, err := w.Write(ctx, 2, third); err != nil {
		t.Fatal(err)
	}
	expect("all null", "b", map[string]string{"_at": want["_at"], "_newest": want["_newest"]})
	expect("the other entity", "a", want)
	key := online.HashKey("shop", name, "v1", 2, "b")
	if left := client.PTTL(ctx, key).Val(); left <= 0 || left > time.Hour {
		t.Errorf("the hash expires in %v, want within the state's hour", left)
	}
}

// TestWideHashes goes beyond what Lua's unpack takes at once, with values and with nulls, and with many entities.
func TestWideHashes(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), group(t)
	w := online.NewWriter(client, "shop", name, "v1")
	const width, entities = 2500, 3
	g := outputs(width)
	var raw []byte
	for round := range 2 {
		b := online.Batch{Expected: raw, Next: online.Position{Next: int64(round + 1)}, Fields: online.Fields(g)}
		for e := range entities {
			results := make([]features.Result, width)
			for i := range results {
				if results[i] = present(schemas.IntValue(int64(e*width + i))); (i+round)%2 == 0 && i > 0 {
					results[i] = features.Result{Status: features.Null}
				}
			}
			b.Keys, b.States = append(b.Keys, fmt.Sprint(e)), append(b.States, []byte("s"))
			b.Values = append(b.Values, online.AppendValues(nil, results, 0, 0))
		}
		var err error
		if raw, err = w.Write(ctx, 0, b); err != nil {
			t.Fatal(err)
		}
		for e := range entities {
			want := map[string]string{"_at": "1970-01-01T00:00:00Z", "_newest": "1970-01-01T00:00:00Z", "f0": fmt.Sprint(e * width)}
			for i := 1; i < width; i++ {
				if (i+round)%2 != 0 {
					want[fmt.Sprint("f", i)] = fmt.Sprint(e*width + i)
				}
			}
			if got := client.HGetAll(ctx, online.HashKey("shop", name, "v1", 0, fmt.Sprint(e))).Val(); !maps.Equal(got, want) {
				t.Errorf("round %d, entity %d: %d fields, want %d", round, e, len(got), len(want))
			}
		}
	}
}
