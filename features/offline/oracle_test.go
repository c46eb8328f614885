package offline

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/schemas"
)

// The tests' oracle is a plain list of these: what was appended, as text.
type told struct {
	time      int64
	partition int32
	offset    int64
	row       string
}

func tell(row schemas.Row) string {
	var b strings.Builder
	for _, v := range row {
		fmt.Fprintf(&b, "%s:%q ", v.Kind(), v.Text())
	}
	return b.String()
}

func inOrderOfTime(a, b told) int {
	return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
}

func inOrderOfOffset(a, b told) int {
	return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
}

var everyKind = []Column{{"flight", schemas.String}, {"delay", schemas.Int}, {"route.distance", schemas.Float},
	{"cancelled", schemas.Bool}, {"left", schemas.Time}, {"raw", schemas.Bytes}}

const monday = int64(980_121_600_000) // 2001-01-22T00:00:00Z

// event is the row at an offset, the same whenever it is asked for: times roughly ascend, many are equal, some are days late, and values of
// every kind are now and then null.
func event(partition int32, offset int64) (schemas.Row, int64) {
	r := rand.New(rand.NewPCG(uint64(partition), uint64(offset)))
	at := monday + offset*600_000 + r.Int64N(1_200_000)
	if r.IntN(20) == 0 {
		at -= r.Int64N(3 * millisPerDay)
	}
	at -= at % 300_000
	row := schemas.Row{schemas.StringValue(fmt.Sprintf("UA%d·%d", partition, offset)), schemas.IntValue(r.Int64N(200) - 20),
		schemas.FloatValue(r.NormFloat64()), schemas.BoolValue(r.IntN(2) == 0), schemas.TimeValue(at - r.Int64N(100_000)),
		schemas.BytesValue(string([]byte{0, byte(r.IntN(256))}))}
	for i := range row {
		if r.IntN(6) == 0 {
			row[i] = schemas.NullValue()
		}
	}
	return row, at
}

func expected(ends map[int32]int64) (all []told) {
	for p, end := range ends {
		for o := range end {
			row, at := event(p, o)
			all = append(all, told{at, p, o, tell(row)})
		}
	}
	slices.SortFunc(all, inOrderOfOffset)
	return all
}

func open(t *testing.T, dir string) *Table {
	t.Helper()
	table, err := OpenTable(dir, everyKind)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func takeOver(t *testing.T, table *Table, partition int32, opts WriterOptions) *Writer {
	t.Helper()
	w, err := table.NewWriter(partition, opts)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// feed appends the events of [from, end).
func feed(w *Writer, from, end int64) error {
	for o := from; o < end; o++ {
		row, at := event(w.partition, o)
		if err := w.Append(row, at, o); err != nil {
			return err
		}
	}
	return nil
}

func write(t *testing.T, w *Writer, end int64) {
	t.Helper()
	if err := feed(w, w.Next(), end); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(end); err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, table *Table, opts ScanOptions) (all []told) {
	t.Helper()
	var row schemas.Row
	err := table.Scan(context.Background(), opts, func(b *Batch) error {
		for i := range b.Len() {
			row = b.Row(i, row)
			all = append(all, told{b.Time(i), b.Partition(), b.Offset(i), tell(row)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sorted(t *testing.T, table *Table, opts ScanOptions) (all []told) {
	t.Helper()
	it, err := table.Sorted(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for it.Next() {
		all = append(all, told{it.Time(), it.Partition(), it.Offset(), tell(it.Row())})
	}
	if it.Err() != nil {
		t.Fatal(it.Err())
	}
	return all
}

func same(t *testing.T, what string, got, want []told) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			g, w := told{row: "nothing"}, told{row: "nothing"}
			if i < len(got) {
				g = got[i]
			}
			if i < len(want) {
				w = want[i]
			}
			t.Fatalf("%s: row %d of %d is %v, want %v of %d", what, i, len(got), g, w, len(want))
		}
	}
}

// holds checks that the table has exactly the events below the ends, and that others who list the folder see exactly its files.
func holds(t *testing.T, dir string, ends map[int32]int64) {
	t.Helper()
	table := open(t, dir) // a reader of its own, that remembers nothing
	got := scan(t, table, ScanOptions{})
	slices.SortStableFunc(got, inOrderOfOffset)
	same(t, "scan", got, expected(ends))
	plan, err := table.plan(ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	committed := map[string]bool{}
	for _, f := range plan.files {
		committed[filepath.Join(dir, f.Path)] = true
	}
	seen, err := filepath.Glob(filepath.Join(dir, "dt=*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range seen {
		if !committed[path] {
			t.Fatalf("%s is visible, but no commit names it", path)
		}
	}
	if len(seen) != len(committed) {
		t.Fatalf("%d files are visible, %d are committed", len(seen), len(committed))
	}
}

func staged(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, stagedDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}
