package online_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// connect gives the Redis of the environment variable MILLRACE_TEST_REDIS, a cluster where MILLRACE_TEST_REDIS_CLUSTER is set, or an
// embedded one.
func connect(t *testing.T) redis.UniversalClient {
	t.Helper()
	addr := os.Getenv("MILLRACE_TEST_REDIS")
	if addr == "" {
		e, err := online.StartEmbedded("")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		addr = e.Addr()
	}
	client, err := online.Open(t.Context(), online.Config{Addrs: []string{addr}, Cluster: os.Getenv("MILLRACE_TEST_REDIS_CLUSTER") != ""})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// group is a name that no other test run uses: a real Redis keeps what earlier ones left.
func group(t *testing.T) string { return fmt.Sprintf("%s-%d", t.Name(), rand.Uint64()) }

func TestPartitionIsKafkas(t *testing.T) {
	kafka := kgo.StickyKeyPartitioner(nil).ForTopic("any")
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		key := make([]byte, random.IntN(40)+1)
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		n := random.IntN(100) + 1
		want := kafka.Partition(&kgo.Record{Key: key}, n)
		if got := online.Partition(online.Murmur2, string(key), int32(n)); int(got) != want {
			t.Fatalf("partition of %x of %d is %d, Kafka's is %d", key, n, got, want)
		}
	}
}

func TestPositionCodec(t *testing.T) {
	for _, p := range []online.Position{
		{}, {Next: 5, Newest: -7}, {Next: 5, Until: 9}, {Next: online.Filling, Newest: 1, Until: 1 << 40},
		{Next: 3, Newest: 9, Until: 8, Sources: map[online.SourcePartition]int64{{"a", 1}: 2}, SourceTimes: map[online.SourcePartition]int64{{"a", 1}: 7}},
		{Next: 1 << 40, Newest: 990_000_000_000, Sources: map[online.SourcePartition]int64{{"arrivals", 3}: 9, {"arrivals", 0}: 1 << 50, {"", 7}: 0}},
		{Next: 9, Newest: 990_000_000_000, Sources: map[online.SourcePartition]int64{{"arrivals", 3}: 9, {"arrivals", 0}: 1 << 50, {"landings", 0}: 4},
			SourceTimes: map[online.SourcePartition]int64{{"arrivals", 3}: 990_000_000_000, {"landings", 0}: -5}},
	} {
		b := p.AppendBinary(nil)
		got, err := online.DecodePosition(b)
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%+v reads back as %+v, %v", p, got, err)
		}
		if !bytes.Equal(b, got.AppendBinary(nil)) {
			t.Errorf("%+v has two encodings", p)
		}
		for cut := 1; cut < len(b); cut++ {
			if _, err := online.DecodePosition(b[:cut]); failure.Of(err) != failure.Corrupt {
				t.Errorf("%d of %d bytes: %v, want Corrupt", cut, len(b), err)
			}
		}
		if _, err := online.DecodePosition(append(bytes.Clone(b), 0)); failure.Of(err) != failure.Corrupt {
			t.Errorf("a byte too many: %v, want Corrupt", err)
		}
	}
}

// Positions from before source partitions had times are read as they were, and written so where none are known.
func TestPositionWithoutTimes(t *testing.T) {
	stored := []byte{1, 10, 14, 1, 1, 'a', 2, 6}
	want := online.Position{Next: 5, Newest: 7, Sources: map[online.SourcePartition]int64{{"a", 2}: 3}}
	got, err := online.DecodePosition(stored)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v is read as %+v, %v, want %+v", stored, got, err, want)
	}
	if b := want.AppendBinary(nil); !bytes.Equal(b, stored) {
		t.Errorf("%+v is written as %v, want %v", want, b, stored)
	}
}

func FuzzDecodePosition(f *testing.F) {
	f.Add(online.Position{Next: 7, Sources: map[online.SourcePartition]int64{{"a", 1}: 2}}.AppendBinary(nil))
	f.Add(online.Position{Next: 7, Newest: 5, Sources: map[online.SourcePartition]int64{{"a", 1}: 2}, SourceTimes: map[online.SourcePartition]int64{{"a", 1}: 3}}.AppendBinary(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := online.DecodePosition(b)
		if err != nil {
			return
		}
		again, err := online.DecodePosition(p.AppendBinary(nil))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Fatalf("%+v reads back as %+v, %v", p, again, err)
		}
	})
}

func TestCommitOnlyOntoTheExpectedPosition(t *testing.T) {
	ctx, client := t.Context(), connect(t)
	w := online.NewWriter(client, "shop", group(t), "v1")
	first, err := w.Commit(ctx, 3, nil, online.Position{Next: 10}, []string{"a", "b"}, [][]byte{[]byte("a10"), []byte("b10")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.Commit(ctx, 3, first, online.Position{Next: 20}, []string{"a"}, [][]byte{[]byte("a20")}, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, expected := range map[string][]byte{"a replay": first, "a late beginner": nil} {
		if _, err := w.Commit(ctx, 3, expected, online.Position{Next: 15}, []string{"a", "c"}, [][]byte{[]byte("wrong"), []byte("wrong")}, 0); failure.Of(err) != failure.Conflict {
			t.Errorf("%s: %v, want Conflict", name, err)
		}
	}
	// Not even the same write again: whoever gets this answer cannot know whose write it was.
	if _, err := w.Commit(ctx, 3, first, online.Position{Next: 20}, []string{"a"}, [][]byte{[]byte("a20")}, 0); failure.Of(err) != failure.Conflict {
		t.Errorf("the same write again: %v, want Conflict", err)
	}
	p, raw, err := w.Load(ctx, 3)
	if err != nil || p.Next != 20 || !bytes.Equal(raw, second) {
		t.Errorf("position is %+v, %x, %v", p, raw, err)
	}
	states, err := w.States(ctx, 3, []string{"c", "b", "a"})
	if want := [][]byte{nil, []byte("b10"), []byte("a20")}; err != nil || !reflect.DeepEqual(states, want) {
		t.Errorf("states are %s, %v, want %s", states, err, want)
	}
	if other, _, err := w.Load(ctx, 4); err != nil || other.Next != 0 {
		t.Errorf("partition 4 is at %+v, %v", other, err)
	}
}

// TestWritersRace has eight owners believe that a partition is theirs. Each adds one to a number and to the position; the script must let exactly
// one through at a time, so that in the end the number is the position.
func TestWritersRace(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), ""
	name = group(t)
	const writers, rounds = 8, 50
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			w := online.NewWriter(client, "shop", name, "v1")
			for done := 0; done < rounds; {
				p, raw, err := w.Load(ctx, 0)
				if err != nil {
					t.Error(err)
					return
				}
				states, err := w.States(ctx, 0, []string{"n"})
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(states[0]))
				_, err = w.Commit(ctx, 0, raw, online.Position{Next: p.Next + 1}, []string{"n"}, [][]byte{[]byte(strconv.Itoa(n + 1))}, 0)
				if err == nil {
					done++
				} else if failure.Of(err) != failure.Conflict {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	w := online.NewWriter(client, "shop", name, "v1")
	p, _, _ := w.Load(ctx, 0)
	states, _ := w.States(ctx, 0, []string{"n"})
	if got := string(states[0]); got != strconv.Itoa(writers*rounds) || p.Next != writers*rounds {
		t.Errorf("number is %s, position %d, want %d", got, p.Next, writers*rounds)
	}
}

func TestManyStatesInOneWrite(t *testing.T) {
	ctx, client := t.Context(), connect(t)
	const n = 5003 // several slices of the script, the last not full
	for _, ttl := range []time.Duration{0, time.Hour} {
		w := online.NewWriter(client, "shop", group(t), "v1")
		keys, states := make([]string, n), make([][]byte, n)
		for i := range n {
			keys[i] = "entity " + strconv.Itoa(i)
			states[i] = bytes.Repeat([]byte{byte(i), 0, '\r', '\n', 0xff}, i%7+1)
		}
		if _, err := w.Commit(ctx, 0, nil, online.Position{Next: 1}, keys, states, ttl); err != nil {
			t.Fatal(err)
		}
		got, err := w.States(ctx, 0, keys)
		if err != nil || !reflect.DeepEqual(got, states) {
			t.Errorf("with expiry %s the states are not what was written (%v)", ttl, err)
		}
	}
}

func TestExpiry(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), group(t)
	w := online.NewWriter(client, "shop", name, "v1")
	if _, err := w.Commit(ctx, 2, nil, online.Position{Next: 1}, []string{"a"}, [][]byte{{1}}, 90*time.Minute); err != nil {
		t.Fatal(err)
	}
	ttl := client.PTTL(ctx, "mr:{shop."+name+"@v1/2}:e:a").Val()
	if ttl <= 89*time.Minute || ttl > 90*time.Minute {
		t.Errorf("state expires in %s", ttl)
	}
	if ttl := client.PTTL(ctx, "mr:{shop."+name+"@v1/2}:p").Val(); ttl > 0 {
		t.Errorf("position expires in %s", ttl)
	}
}

func TestRows(t *testing.T) {
	ctx, client := t.Context(), connect(t)
	w := online.NewWriter(client, "shop", group(t), "v1")
	var raw []byte
	for i, step := range []struct {
		mode online.RowsMode
		rows string
		want string
	}{
		{online.RowsAppend, "ab", "ab"}, {online.RowsKeep, "", "ab"}, {online.RowsAppend, "c", "abc"},
		{online.RowsReplace, "d", "d"}, {online.RowsReplace, "", ""}, {online.RowsAppend, "e", "e"},
	} {
		var err error
		raw, err = w.Write(ctx, 0, online.Batch{Expected: raw, Next: online.Position{Next: int64(i + 1)}, Rows: []byte(step.rows), RowsMode: step.mode})
		if err != nil {
			t.Fatal(err)
		}
		l, err := w.LoadRows(ctx, 0)
		if err != nil || string(l.Rows) != step.want || l.Position.Next != int64(i+1) {
			t.Errorf("after step %d: rows %q at %d, %v, want %q", i, l.Rows, l.Position.Next, err, step.want)
		}
	}
	if _, err := w.Write(ctx, 0, online.Batch{Next: online.Position{Next: 1}, Rows: []byte("x"), RowsMode: online.RowsAppend}); failure.Of(err) != failure.Conflict {
		t.Errorf("rows onto a wrong position: %v, want Conflict", err)
	}
	if l, _ := w.LoadRows(ctx, 0); string(l.Rows) != "e" {
		t.Errorf("a write that lost left rows %q", l.Rows)
	}
}

// roundTrips counts what is sent to Redis at once, a command or a pipeline, but for what a new connection begins with.
type roundTrips struct{ n int }

func (r *roundTrips) count(cmds ...redis.Cmder) {
	if cmds[0].Name() == "mget" {
		r.n++
	}
}

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook { return next }
func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { r.count(cmd); return next(ctx, cmd) }
}
func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error { r.count(cmds...); return next(ctx, cmds) }
}

func TestReader(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), group(t)
	const partitions = 4
	groups := []online.GroupRef{
		{Group: &features.Group{Definition: features.Definition{Name: name + "a"}, Version: "v1"}, Partitions: partitions},
		{Group: &features.Group{Definition: features.Definition{Name: name + "b"}, Version: "v2"}, Partitions: 1},
	}
	writers := []*online.Writer{online.NewWriter(client, "shop", name+"a", "v1"), online.NewWriter(client, "shop", name+"b", "v2")}
	var refs []online.Ref
	for g, ref := range groups {
		byPartition := map[int32][]string{}
		for i := range 30 {
			key := "k" + strconv.Itoa(i)
			refs = append(refs, online.Ref{Group: g, Key: key})
			if p := online.Partition(online.Murmur2, key, ref.Partitions); i%5 != 0 { // every fifth is not there
				byPartition[p] = append(byPartition[p], key)
			}
		}
		for p, keys := range byPartition {
			states := make([][]byte, len(keys))
			for i, k := range keys {
				states[i] = fmt.Appendf(nil, "%d:%s", g, k)
			}
			if _, err := writers[g].Commit(ctx, p, nil, online.Position{Next: 100 + int64(p), Newest: 5}, keys, states, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	rand.Shuffle(len(refs), func(i, j int) { refs[i], refs[j] = refs[j], refs[i] })
	trips := &roundTrips{}
	client.AddHook(trips)
	r := online.NewReader(client, "shop", groups...)
	entries, err := r.Get(ctx, refs)
	if err != nil {
		t.Fatal(err)
	}
	if trips.n != 1 {
		t.Errorf("took %d round trips, want 1", trips.n)
	}
	for i, e := range entries {
		n, _ := strconv.Atoi(refs[i].Key[1:])
		want := fmt.Sprintf("%d:%s", refs[i].Group, refs[i].Key)
		if n%5 == 0 {
			want = ""
		}
		p := online.Partition(online.Murmur2, refs[i].Key, groups[refs[i].Group].Partitions)
		if string(e.State) != want || (e.State == nil) != (want == "") || e.Partition != p || e.Position.Next != 100+int64(p) {
			t.Errorf("%+v is %q in %d at %d, want %q in %d at %d", refs[i], e.State, e.Partition, e.Position.Next, want, p, 100+p)
		}
	}
	trips.n = 0
	positions, err := r.Positions(ctx, 0)
	if err != nil || len(positions) != partitions || trips.n != 1 {
		t.Fatalf("positions are %+v, %v, in %d round trips", positions, err, trips.n)
	}
	for p, position := range positions {
		if position.Next != 100+int64(p) || position.Newest != 5 {
			t.Errorf("partition %d is at %+v", p, position)
		}
	}
}

// TestReaderSeesOneInstant reads while a writer goes on: state and position of an answer must be of one write.
func TestReaderSeesOneInstant(t *testing.T) {
	ctx, client, name := t.Context(), connect(t), group(t)
	ref := online.GroupRef{Group: &features.Group{Definition: features.Definition{Name: name}, Version: "v"}, Partitions: 1}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		w := online.NewWriter(client, "shop", name, "v")
		var raw []byte
		for i := int64(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			state := []byte(strconv.FormatInt(i, 10))
			var err error
			if raw, err = w.Commit(ctx, 0, raw, online.Position{Next: i}, []string{"a", "b"}, [][]byte{state, state}, 0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	r := online.NewReader(client, "shop", ref)
	for range 300 {
		entries, err := r.Get(ctx, []online.Ref{{Key: "a"}, {Key: "b"}})
		if err != nil {
			t.Fatal(err)
		}
		a, b := string(entries[0].State), string(entries[1].State)
		if want := strconv.FormatInt(entries[0].Position.Next, 10); a != b || (a != want && want != "0") {
			t.Fatalf("read a=%s b=%s at %s", a, b, want)
		}
	}
	close(stop)
	wg.Wait()
}

func TestSnapshot(t *testing.T) {
	ctx, file := t.Context(), filepath.Join(t.TempDir(), "data", "redis.snapshot")
	open := func() (*online.Embedded, redis.UniversalClient) {
		e, err := online.StartEmbedded(file)
		if err != nil {
			t.Fatal(err)
		}
		client, err := online.Open(ctx, online.Config{Addrs: []string{e.Addr()}})
		if err != nil {
			t.Fatal(err)
		}
		return e, client
	}
	e, client := open()
	w := online.NewWriter(client, "shop", "g", "v")
	state := []byte("\x00\xff\r\nstate")
	raw, err := w.Commit(ctx, 0, nil, online.Position{Next: 4}, []string{"a"}, [][]byte{state}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	version := online.Version{ID: "v", Definition: "v", Topic: "t", Partitions: 3, Partitioner: online.Murmur2}
	if err := online.NewVersions(client, "shop").Declare(ctx, "g", version); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}

	e, client = open()
	l, err := online.NewWriter(client, "shop", "g", "v").LoadRows(ctx, 0)
	if err != nil || l.Position.Next != 4 || !bytes.Equal(l.Raw, raw) {
		t.Errorf("position is %+v, %v", l, err)
	}
	if states, err := online.NewWriter(client, "shop", "g", "v").States(ctx, 0, []string{"a"}); err != nil || !bytes.Equal(states[0], state) {
		t.Errorf("state is %q, %v", states, err)
	}
	if known, err := online.NewVersions(client, "shop").Load(ctx, "g"); err != nil || known[0].Active != "v" || known[0].All["v"].Partitions != 3 {
		t.Errorf("the version was forgotten: %+v, %v", known, err)
	}
	client.Close()
	e.Close()

	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string][]byte{"cut": whole[:len(whole)-3], "empty": {}, "changed": append([]byte{whole[0] ^ 1}, whole[1:]...)} {
		if err := os.WriteFile(file, damage, 0o644); err != nil {
			t.Fatal(err)
		}
		e, client := open()
		if n := client.DBSize(ctx).Val(); n != 0 {
			t.Errorf("%s: %d keys were loaded", name, n)
		}
		if set, err := os.ReadFile(file + ".damaged"); err != nil || !bytes.Equal(set, damage) {
			t.Errorf("%s: the damaged file was not set aside: %v", name, err)
		}
		client.Close()
		e.Close()
	}
}

func TestUnavailable(t *testing.T) {
	e, err := online.StartEmbedded("")
	if err != nil {
		t.Fatal(err)
	}
	client, err := online.Open(t.Context(), online.Config{Addrs: []string{e.Addr()}, Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	w := online.NewWriter(client, "shop", "g", "v")
	if _, _, err := w.Load(t.Context(), 0); failure.Of(err) != failure.Unavailable {
		t.Errorf("loading: %v, want Unavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	r := online.NewReader(client, "shop", online.GroupRef{Group: &features.Group{}, Partitions: 1})
	if _, err := r.Get(ctx, []online.Ref{{Key: "a"}}); failure.Of(err) != failure.Deadline {
		t.Errorf("reading too late: %v, want Deadline", err)
	}
	if _, err := online.Open(t.Context(), online.Config{Addrs: []string{"127.0.0.1:1"}}); failure.Of(err) != failure.Unavailable {
		t.Errorf("opening: %v, want Unavailable", err)
	}
	if _, err := online.Open(t.Context(), online.Config{Addrs: []string{"nowhere"}}); failure.Of(err) != failure.BadProject {
		t.Errorf("opening without a port: %v, want BadProject", err)
	}
}

// A reader tells a partition that is being computed again from one that has all its events, and one that was never begun with from one that
// has none.
func TestReaderTellsRebuilding(t *testing.T) {
	client, name := connect(t), group(t)
	w := online.NewWriter(client, "shop", name, "v")
	r := online.NewReader(client, "shop", online.GroupRef{Group: &features.Group{Definition: features.Definition{Name: name}, Version: "v"}, Partitions: 1})
	var raw []byte
	for i, step := range []struct {
		position   *online.Position
		rebuilding bool
	}{
		{nil, true}, {&online.Position{}, false}, {&online.Position{Next: online.Filling}, true}, {&online.Position{Next: 4}, false},
		{&online.Position{Next: 0, Until: 5}, true}, {&online.Position{Next: 4, Until: 5}, true}, {&online.Position{Next: 5, Until: 5}, false},
	} {
		if step.position != nil {
			var err error
			if raw, err = w.Write(t.Context(), 0, online.Batch{Expected: raw, Next: *step.position}); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := r.Get(t.Context(), []online.Ref{{Key: "a"}})
		if err != nil || entries[0].Rebuilding != step.rebuilding {
			t.Errorf("step %d, %+v: %+v, %v", i, step.position, entries, err)
		}
	}
}
