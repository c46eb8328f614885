package offline

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

const mergedProject = `
project: merged
sources:
  b: {schema: b.avsc, key: id, time: at, derive: {twice: n * 2}}
  a: {schema: b.avsc, key: id, time: at, topic: other, where: n != 13}
  both: {merge: {b: {columns: {id: id, n: twice}}, a: {columns: {id: id, n: n}, where: n != 14}}}
`

const countedSchema = `{"type": "record", "name": "b", "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": "long"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}`

func TestSourceEvents(t *testing.T) {
	folder, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{project.FileName: mergedProject, "b.avsc": countedSchema} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := project.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	type event struct {
		time      int64
		source    string
		partition int32
		offset    int64
		n         int64
	}
	var want []event
	random := rand.New(rand.NewPCG(3, 4))
	for _, name := range []string{"a", "b"} {
		s := p.Source(name)
		table, err := EventsTable(dir, name, s.Schema)
		if err != nil {
			t.Fatal(err)
		}
		for partition := range int32(3) {
			w, err := table.NewWriter(partition, WriterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for offset := range int64(200) {
				at, n := 1_000_000+random.Int64N(100), random.Int64N(20)
				row := s.Schema.Complete(schemas.Row{schemas.StringValue(fmt.Sprint(n)), schemas.IntValue(n), schemas.TimeValue(at)})
				if err := w.Append(row, at, offset); err != nil {
					t.Fatal(err)
				}
				if name == "b" {
					want = append(want, event{at, name, partition, offset, 2 * n})
				} else if n != 13 && n != 14 {
					want = append(want, event{at, name, partition, offset, n})
				}
				if offset%70 == 69 || offset == 199 {
					if err := w.Commit(offset + 1); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.SortFunc(want, func(x, y event) int {
		for _, d := range []int64{x.time - y.time, int64(x.source[0]) - int64(y.source[0]), int64(x.partition - y.partition), x.offset - y.offset} {
			if d != 0 {
				return int(d)
			}
		}
		return 0
	})
	both := p.Source("both")
	events, err := SourceEvents(t.Context(), dir, both, ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []event
	for events.Next() {
		row := events.Row()
		if row[0].Int() != events.Time() || row[1].Str() != events.Root().Name {
			t.Fatalf("row %v of %s at %d", row, events.Root().Name, events.Time())
		}
		got = append(got, event{events.Time(), row[1].Str(), events.Partition(), events.Offset(), row[3].Int()})
	}
	if err := events.Err(); err != nil {
		t.Fatal(err)
	}
	if err := events.Close(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d events in another order or other than the %d that there must be", len(got), len(want))
	}
	single, err := SourceEvents(t.Context(), dir, p.Source("b"), ScanOptions{Until: 1_000_050})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for single.Next() {
		if n++; len(single.Row()) != 4 || single.Row()[3].Int() != 2*single.Row()[1].Int() || single.Time() >= 1_000_050 {
			t.Fatalf("row %v", single.Row())
		}
	}
	if n == 0 || single.Err() != nil {
		t.Errorf("%d events, %v", n, single.Err())
	}
}

// The project refuses columns that a file could not hold, before anything runs.
func TestProjectsNameNoColumnOfTheFiles(t *testing.T) {
	for _, name := range []string{TimeColumn, PartitionColumn, OffsetColumn} {
		dir := t.TempDir()
		for file, text := range map[string]string{
			project.FileName: "project: p\nsources: {a: {schema: a.avsc, key: k, time: t}}\n",
			"a.avsc": `{"type":"record","name":"a","fields":[{"name":"k","type":"string"},{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
				{"name":"` + name + `","type":"long"}]}`,
		} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := project.Load(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a source with the column %s: %v", name, err)
		}
	}
}
