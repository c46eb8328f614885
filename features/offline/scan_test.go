package offline

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

func TestSortedMergesPartitions(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir)
	ends := map[int32]int64{0: 700, 1: 400, 2: 555}
	for p, end := range ends {
		w := takeOver(t, table, p, WriterOptions{RowsPerFile: 50})
		for w.Next() < end {
			write(t, w, min(end, w.Next()+97))
		}
	}
	want := expected(ends)
	slices.SortFunc(want, inOrderOfTime)
	same(t, "all", sorted(t, table, ScanOptions{}), want)

	from, until := want[300].time, want[900].time
	var part []told
	for _, w := range want {
		if w.time >= from && w.time < until {
			part = append(part, w)
		}
	}
	same(t, "part", sorted(t, table, ScanOptions{From: from, Until: until}), part)
	if got := sorted(t, table, ScanOptions{From: until, Until: until}); len(got) > 0 {
		t.Fatalf("an empty range has %d rows", len(got))
	}
	got := scan(t, table, ScanOptions{From: from, Until: until})
	slices.SortFunc(got, inOrderOfTime)
	same(t, "scanned part", got, part)

	narrow := sorted(t, table, ScanOptions{Columns: []string{"left", "flight"}})
	for i, n := range narrow {
		row, _ := event(n.partition, n.offset)
		if n.offset != want[i].offset || n.row != tell(schemas.Row{row[4], row[0]}) {
			t.Fatalf("row %d is %v", i, n)
		}
	}
	if _, err := table.Sorted(context.Background(), ScanOptions{Columns: []string{"gate"}}); failure.Of(err) != failure.NotFound {
		t.Fatalf("error is %v", err)
	}
}

// The merge holds one batch of each file whose times overlap, not of all files.
func TestSortedIsBounded(t *testing.T) {
	table := open(t, t.TempDir())
	row := make(schemas.Row, len(everyKind))
	const partitions, commits = 3, 15
	for p := range int32(partitions) {
		w := takeOver(t, table, p, WriterOptions{})
		for c := range int64(commits) {
			for i := range int64(10) {
				o := c*10 + i
				if err := w.Append(row, monday+o*1000, o); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Commit((c + 1) * 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	it, err := table.Sorted(context.Background(), ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	rows, most := 0, 0
	for it.Next() {
		rows++
		most = max(most, len(it.heap))
	}
	if it.Err() != nil || rows != partitions*commits*10 || most > 2*partitions {
		t.Fatalf("%d rows with up to %d of %d files open: %v", rows, most, partitions*commits, it.Err())
	}
}

func TestScansStop(t *testing.T) {
	table := open(t, t.TempDir())
	write(t, takeOver(t, table, 0, WriterOptions{}), 3000)
	ctx, cancel := context.WithCancel(context.Background())
	errEnough := errors.New("enough")
	if err := table.Scan(ctx, ScanOptions{}, func(*Batch) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Fatalf("error is %v", err)
	}
	it, err := table.Sorted(ctx, ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	cancel()
	for it.Next() {
	}
	if !errors.Is(it.Err(), context.Canceled) {
		t.Fatalf("error is %v", it.Err())
	}
	if err := table.Scan(ctx, ScanOptions{}, func(*Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v", err)
	}
}

// Readers that come while a partition is written see commits whole.
func TestReadersSeeWholeCommits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const commit, end = 20, 300
	done := make(chan error, 1)
	go func() {
		table, err := OpenTable(dir, everyKind)
		if err != nil {
			done <- err
			return
		}
		w, err := table.NewWriter(0, WriterOptions{RowsPerFile: 7})
		for to := int64(commit); err == nil && to <= end; to += commit {
			err = errors.Join(feed(w, w.Next(), to), w.Commit(to))
		}
		done <- err
	}()
	table := open(t, dir)
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		got := scan(t, table, ScanOptions{})
		slices.SortFunc(got, inOrderOfOffset)
		if len(got)%commit != 0 {
			t.Fatalf("a reader saw %d rows", len(got))
		}
		same(t, "reader", got, expected(map[int32]int64{0: int64(len(got))}))
	}
	holds(t, dir, map[int32]int64{0: end})
}
