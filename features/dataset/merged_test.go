package dataset

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

const movesYAML = `project: moves
sources:
  starts: {schema: move.avsc, format: json, key: id, time: at, derive: {twice: n * 2}}
  ends: {schema: move.avsc, format: json, key: id, time: at, where: n != 3}
  moves: {merge: {starts: {columns: {place: place, n: twice, id: id}}, ends: {columns: {place: place, n: n, id: id}, where: n != 4}}, derive: {high: n > 10}}
features:
  places: {source: moves, entity: place, windows: [lifetime], features: {count: count(), sum: sum(n), high: sum(high), last: last(id)}}
`

const moveSchema = `{"type":"record","name":"move","fields":[{"name":"id","type":"string"},{"name":"place","type":"string"},{"name":"n","type":"long"},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}`

// TestMergedSource has many events of few times in two logs, and works out by plain Go what each row must see: those before its time, by
// time, part, partition and offset.
func TestMergedSource(t *testing.T) {
	f := fixtureOf(t, movesYAML, "move.avsc", moveSchema)
	type move struct {
		at        int64
		part      string
		partition int32
		offset    int64
		place, id string
		n         int64
	}
	var all []move
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	random := rand.New(rand.NewPCG(8, 9))
	for _, name := range []string{"starts", "ends"} {
		s := f.q.Project.Source(name)
		table, err := offline.EventsTable(f.q.OfflineDir, name, s.Schema)
		if err != nil {
			t.Fatal(err)
		}
		for partition := range int32(2) {
			w, err := table.NewWriter(partition, offline.WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for offset := range int64(60) {
				m := move{base + random.Int64N(20)*1000, name, partition, offset, []string{"ulm", "bonn"}[random.IntN(2)], fmt.Sprintf("%s-%d-%d", name, partition, offset), random.Int64N(12)}
				row := s.Schema.Complete(schemas.Row{schemas.StringValue(m.id), schemas.StringValue(m.place), schemas.IntValue(m.n), schemas.TimeValue(m.at)})
				if err := w.Append(row, m.at, offset); err != nil {
					t.Fatal(err)
				}
				if name == "starts" {
					m.n *= 2
				} else if m.n == 3 || m.n == 4 {
					continue
				}
				all = append(all, m)
			}
			if err := w.Commit(60); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.SortFunc(all, func(a, b move) int {
		for _, d := range []int64{a.at - b.at, int64(strings.Compare(a.part, b.part)), int64(a.partition - b.partition), a.offset - b.offset} {
			if d != 0 {
				return int(d)
			}
		}
		return 0
	})
	spine := "place,when\n"
	var want []string
	for second := int64(1); second <= 21; second++ {
		for _, place := range []string{"ulm", "bonn"} {
			at := base + second*1000
			spine += place + "," + time.UnixMilli(at).UTC().Format("2006-01-02 15:04:05") + "\n"
			count, sum, high, last := 0, int64(0), 0, ""
			for _, m := range all {
				if m.place != place || m.at >= at {
					continue
				}
				count++
				sum += m.n
				last = m.id
				if m.n > 10 {
					high++
				}
			}
			want = append(want, fmt.Sprintf("%d %d %d %s", count, sum, high, last))
		}
	}
	f.q.Spine = Spine{File: f.write(t, "spine.csv", spine), Time: "when"}
	m := f.make(t)
	if len(m.Events) != 1 || m.Events[0].Rows != 240 || !strings.Contains(m.Events[0].Digest, "starts=sha256:") {
		t.Errorf("the manifest has the events %+v", m.Events)
	}
	got := rows(t, f.q.Out, "places.count", "places.sum", "places.high", "places.last")
	if !slices.Equal(got, want) {
		t.Errorf("the rows are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhatCannotBeReadOfMadeSources(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"cannot be read from a file": func(q *Request) { q.Events = map[string]string{"moves": "moves.parquet"} },
		"cannot be told by a column": func(q *Request) { q.Known = map[string]Known{"moves": {Column: "time"}} },
		"has a condition (where)":    func(q *Request) { q.Spine = Spine{Source: "ends"} },
		"is merged of others":        func(q *Request) { q.Spine = Spine{Source: "moves"} },
	} {
		f := fixtureOf(t, movesYAML, "move.avsc", moveSchema)
		f.q.Spine = Spine{File: f.write(t, "spine.csv", "place,when\nulm,2026-01-01 00:00:00\n"), Time: "when"}
		change(&f.q)
		_, err := Make(t.Context(), f.q, func(string, int64, int64) {})
		if failure.Of(err) != failure.BadRequest || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("the error is %v, want one that says %q", err, name)
		}
		if _, err := os.Stat(f.q.Out); err == nil {
			t.Error("a file was made")
		}
	}
}
