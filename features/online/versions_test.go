package online_test

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/online"
)

// TestPartitionIsLibrdkafkas compares with partitions that confluent-kafka 2.6.1 (librdkafka 2.6.1) produced to on a topic of 12, and with the
// standard library's CRC-32.
func TestPartitionIsLibrdkafkas(t *testing.T) {
	for key, want := range librdkafka {
		if got := online.Partition(online.CRC32, key, 12); got != want {
			t.Errorf("partition of %q is %d, librdkafka's is %d", key, got, want)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for range 10_000 {
		key := make([]byte, random.IntN(60)+1)
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		n := random.Uint32N(100) + 1
		if got, want := online.Partition(online.CRC32, string(key), int32(n)), crc32.ChecksumIEEE(key)%n; got != int32(want) {
			t.Fatalf("partition of %x of %d is %d, want %d", key, n, got, want)
		}
	}
}

func TestFitting(t *testing.T) {
	keys := []string{"a", "bc", "def", "ghij", "klmno"}
	at := make([]int32, len(keys))
	for i, k := range keys {
		at[i] = online.Partition(online.CRC32, k, 12)
	}
	if got := online.Fitting(keys, at, 12); len(got) != 1 || got[0] != online.CRC32 {
		t.Errorf("%v fit", got)
	}
}

// TestVersions is the life of two versions.
func TestVersions(t *testing.T) {
	ctx, name := t.Context(), group(t)
	versions := online.NewVersions(connect(t), "shop")
	load := func() online.Group {
		t.Helper()
		known, err := versions.Load(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return known[0]
	}
	declare := func(v online.Version) {
		t.Helper()
		if err := versions.Declare(ctx, name, v); err != nil {
			t.Fatal(err)
		}
	}
	swap := func(from, to string, want bool) {
		t.Helper()
		if moved, err := versions.Swap(ctx, name, from, to, time.UnixMilli(7)); err != nil || moved != want {
			t.Fatalf("swapping %s for %s: %t, %v", from, to, moved, err)
		}
	}
	one := online.Version{ID: "one", Definition: "one", Topic: "t", Partitions: 3, Partitioner: online.Murmur2, Project: map[string]string{"f": "x"}}
	if g := load(); g.Active != "" || len(g.All) != 0 {
		t.Fatalf("there is something: %+v", g)
	}
	declare(one)
	changed := one
	changed.Partitions = 9
	declare(changed) // what is declared stays
	if g := load(); g.Active != "one" || g.Target != "one" || g.All["one"].Partitions != 3 || g.All["one"].Project["f"] != "x" || g.Next("one") != "one.2" || g.Next("two") != "two" {
		t.Fatalf("the first is not active: %+v", g)
	}
	two := one
	two.ID, two.Definition = "two", "two"
	declare(two)
	if g := load(); g.Active != "one" || g.Target != "two" {
		t.Fatalf("the second is read before it is there: %+v", g)
	}
	swap("two", "one", false)   // from what it is not
	swap("one", "three", false) // to what is not there
	swap("one", "two", true)
	swap("one", "two", false) // another was first
	if g := load(); g.Active != "two" || g.Retired["one"] != 7 {
		t.Fatalf("after the swap: %+v", g)
	}
	if err := versions.Hold(ctx, name, "one", time.Hour); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]bool{"one": true, "two": false} {
		if held, err := versions.Held(ctx, name, id); err != nil || held != want {
			t.Errorf("%s held: %t, %v", id, held, err)
		}
	}
	if dropped, err := versions.Drop(ctx, name, "two"); dropped || err != nil {
		t.Errorf("the active one is dropped: %v", err)
	}
}

// TestDropLeavesOthers deletes the state of one version and nothing else.
func TestDropLeavesOthers(t *testing.T) {
	ctx, name, client := t.Context(), group(t), connect(t)
	versions := online.NewVersions(client, "shop")
	for _, id := range []string{"one", "one.2", "two"} {
		if err := versions.Declare(ctx, name, online.Version{ID: id, Definition: id, Partitions: 2}); err != nil {
			t.Fatal(err)
		}
		for p := range int32(2) {
			if _, err := online.NewWriter(client, "shop", name, id).Commit(ctx, p, nil, online.Position{Next: 5}, []string{"a", "b"}, [][]byte{{1}, {2}}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := versions.Swap(ctx, name, "one", "two", time.UnixMilli(1)); err != nil {
		t.Fatal(err)
	}
	if dropped, err := versions.Drop(ctx, name, "one"); !dropped || err != nil {
		t.Fatalf("dropped %t, %v", dropped, err)
	}
	for id, want := range map[string]int64{"one": 0, "one.2": 5, "two": 5} {
		p, _, err := online.NewWriter(client, "shop", name, id).Load(ctx, 1)
		if err != nil || p.Next != want {
			t.Errorf("position of %s is %d (%v), want %d", id, p.Next, err, want)
		}
	}
}

// TestOneFills has one filler at a time, until its lease ends or it leaves.
func TestOneFills(t *testing.T) {
	ctx, name := t.Context(), group(t)
	versions := online.NewVersions(connect(t), "shop")
	take := func(owner string, lease time.Duration, want bool) {
		t.Helper()
		if ours, err := versions.TakeFilling(ctx, name, "v", owner, lease); err != nil || ours != want {
			t.Fatalf("%s has it: %t, %v", owner, ours, err)
		}
	}
	take("a", time.Hour, true)
	take("b", time.Hour, false)
	take("a", time.Hour, true)
	if err := versions.LeaveFilling(ctx, name, "v", "b"); err != nil { // it is not b's to leave
		t.Fatal(err)
	}
	take("b", time.Hour, false)
	if err := versions.LeaveFilling(ctx, name, "v", "a"); err != nil {
		t.Fatal(err)
	}
	take("b", time.Millisecond, true)
	for deadline := time.Now().Add(time.Minute); ; {
		ours, err := versions.TakeFilling(ctx, name, "v", "a", time.Hour)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the lease does not end: %v", err)
		}
		if ours {
			return
		}
	}
}

// librdkafka is where it puts keys on a topic of 12 partitions.
var librdkafka = map[string]int32{
	"ORD":                     0,
	"Kühe 7":                  0,
	"żółw":                    6,
	"true":                    5,
	"0":                       5,
	"card-4411":               7,
	strings.Repeat("k", 1024): 7,
	"x\x1fy":                  4,
	"1700000000123":           4,
	"日本":                      8,
	"-17":                     8,
	"a":                       3,
}

// What a partition has without a position is deleted, and nothing else: not what has a position, nor another version's, nor another partition's
// whose number begins with the same digit.
func TestClear(t *testing.T) {
	ctx, client := t.Context(), connect(t)
	w, other := online.NewWriter(client, "p", "g", "v1"), online.NewWriter(client, "p", "g", "v10")
	var keys []string
	var states [][]byte
	for i := range 2500 {
		keys, states = append(keys, fmt.Sprint("entity}:", i)), append(states, []byte("s"))
	}
	fields := online.Batch{Keys: keys, States: states, Rows: []byte("r"), RowsMode: online.RowsAppend}
	for _, writer := range []*online.Writer{w, other} {
		for _, p := range []int32{1, 2, 12} {
			fields.Next = online.Position{Next: 5}
			if _, err := writer.Write(ctx, p, fields); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, p := range []int32{1, 12} {
		if err := client.Del(ctx, fmt.Sprintf("mr:{p.g@v1/%d}:p", p)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Clear(ctx, 1, 2); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		w         *online.Writer
		partition int32
		left      int
	}{{w, 1, 0}, {w, 2, len(keys)}, {w, 12, len(keys)}, {other, 1, len(keys)}} {
		found, err := c.w.States(ctx, c.partition, keys)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range found {
			if s != nil {
				n++
			}
		}
		l, err := c.w.LoadRows(ctx, c.partition)
		if err != nil || n != c.left || (len(l.Rows) > 0) != (c.left > 0) {
			t.Errorf("partition %d: %d states and rows %q are left, %v, want %d", c.partition, n, l.Rows, err, c.left)
		}
	}
}
