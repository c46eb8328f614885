package offline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

func TestRowsComeBackAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir)
	ends := map[int32]int64{0: 900, 1: 500, 7: 3}
	for p, end := range ends {
		w := takeOver(t, table, p, WriterOptions{RowsPerFile: 90, BufferedRows: 200})
		for to := min(end, 123); ; to = min(end, to+311) {
			write(t, w, to)
			if to == end {
				break
			}
		}
	}
	holds(t, dir, ends)
	if n, err := table.Next(0); n != 900 || err != nil {
		t.Fatalf("Next is %d, %v", n, err)
	}
	if n, err := table.Next(3); n != 0 || err != nil {
		t.Fatalf("Next of an empty partition is %d, %v", n, err)
	}
	stats, err := table.Stats()
	if err != nil {
		t.Fatal(err)
	}
	byTime := expected(ends)
	slices.SortFunc(byTime, inOrderOfTime)
	if stats.Rows != 1403 || stats.Commits != 8 || stats.From != byTime[0].time || stats.Until != byTime[1402].time+1 {
		t.Fatalf("stats are %+v", stats)
	}
	newest := map[int32]int64{}
	for _, row := range byTime {
		newest[row.partition] = row.time
	}
	if !maps.Equal(stats.Newest, newest) {
		t.Fatalf("newest are %v, want %v", stats.Newest, newest)
	}
}

func TestDaysAreFolders(t *testing.T) {
	testFolders(t, WriterOptions{}, "dt=1969-12-31/2-0-9.arrow 1", "dt=1970-01-01/2-0-9.arrow 2", "dt=1970-01-02/2-0-9.arrow 1",
		"dt=2001-01-22/2-0-9.arrow 1")
}

func TestMonthsAreFolders(t *testing.T) {
	testFolders(t, WriterOptions{By: ByMonth}, "month=1969-12/2-0-9.arrow 1", "month=1970-01/2-0-9.arrow 3", "month=2001-01/2-0-9.arrow 1")
}

func testFolders(t *testing.T, opts WriterOptions, want ...string) {
	dir := t.TempDir()
	w := takeOver(t, open(t, dir), 2, opts)
	for i, at := range []int64{-1, 0, millisPerDay - 1, millisPerDay, monday} {
		if err := w.Append(make(schemas.Row, len(everyKind)), at, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(9); err != nil {
		t.Fatal(err)
	}
	var days []string
	for _, f := range scanFiles(t, dir) {
		days = append(days, fmt.Sprintf("%s %d", f.Path, f.Rows))
	}
	if !slices.Equal(days, want) {
		t.Fatalf("files are %q, want %q", days, want)
	}
}

func scanFiles(t *testing.T, dir string) []plannedFile {
	t.Helper()
	plan, err := open(t, dir).plan(ScanOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return plan.files
}

func TestReplaysAreIgnored(t *testing.T) {
	dir := t.TempDir()
	w := takeOver(t, open(t, dir), 0, WriterOptions{})
	write(t, w, 50)
	if err := feed(w, 0, 80); err != nil {
		t.Fatal(err)
	}
	if w.Rows() != 30 {
		t.Fatalf("%d rows wait, want 30", w.Rows())
	}
	if err := errors.Join(w.Commit(50), w.Commit(80), w.Commit(80), w.Commit(10)); err != nil {
		t.Fatal(err)
	}
	w = takeOver(t, open(t, dir), 0, WriterOptions{})
	if err := errors.Join(feed(w, 0, 90), w.Commit(90)); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, map[int32]int64{0: 90})
}

func TestSeveralRowsOfOneOffset(t *testing.T) {
	dir := t.TempDir()
	w := takeOver(t, open(t, dir), 0, WriterOptions{RowsPerFile: 2})
	for range 5 {
		if err := w.Append(make(schemas.Row, len(everyKind)), monday, 7); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(8); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, open(t, dir), ScanOptions{}); len(got) != 5 {
		t.Fatalf("%d rows, want 5", len(got))
	}
}

func TestEmptyRangesAreCommitted(t *testing.T) {
	dir := t.TempDir()
	w := takeOver(t, open(t, dir), 0, WriterOptions{})
	if err := w.Commit(100); err != nil {
		t.Fatal(err)
	}
	if n, err := open(t, dir).Next(0); n != 100 || err != nil {
		t.Fatalf("Next is %d, %v", n, err)
	}
}

func TestSinceTellsTheFirstWaitingRow(t *testing.T) {
	now := time.Unix(1000, 0)
	w := takeOver(t, open(t, t.TempDir()), 0, WriterOptions{Clock: func() time.Time { return now }})
	if !w.Since().IsZero() {
		t.Fatal("nothing waits")
	}
	first := now
	if err := feed(w, 0, 1); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	if err := feed(w, 1, 2); err != nil {
		t.Fatal(err)
	}
	if !w.Since().Equal(first) {
		t.Fatalf("since %s, want %s", w.Since(), first)
	}
	if err := w.Commit(2); err != nil || !w.Since().IsZero() {
		t.Fatalf("since %s after the commit (%v)", w.Since(), err)
	}
}

func TestWriterRefuses(t *testing.T) {
	w := takeOver(t, open(t, t.TempDir()), 0, WriterOptions{})
	row, _ := event(0, 0)
	wrong := slices.Clone(row)
	wrong[1] = schemas.StringValue("late")
	for _, c := range []struct {
		err  error
		want string
	}{
		{w.Append(wrong, monday, 0), "delay: a string does not fit a column of int"},
		{w.Append(row[:3], monday, 0), "3 values for 6 columns"},
		{feed(w, 0, 5), ""},
		{w.Commit(4), "row of offset 4"},
		{w.Commit(5), ""},
		{w.Close(), ""},
		{w.Commit(6), "closed"},
	} {
		if (c.err == nil) != (c.want == "") || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("error is %v, want %q", c.err, c.want)
		}
	}
	if _, err := open(t, t.TempDir()).NewWriter(0, WriterOptions{RowsPerFile: -1, BufferedBytes: math.MaxInt}); err == nil ||
		!strings.Contains(err.Error(), "RowsPerFile") || !strings.Contains(err.Error(), "BufferedBytes") {
		t.Errorf("error is %v, want both limits named", err)
	}
	for _, columns := range [][]Column{{{"_time", schemas.Int}}, {{"", schemas.Int}}, {{"a", schemas.Int}, {"a", schemas.Int}},
		{{"a", schemas.Null}}} {
		if _, err := OpenTable(t.TempDir(), columns); failure.Of(err) != failure.BadProject {
			t.Errorf("columns %v: error is %v", columns, err)
		}
	}
}

func TestGrownTableReadsOldFiles(t *testing.T) {
	dir := t.TempDir()
	old, err := OpenTable(dir, everyKind[:2])
	if err != nil {
		t.Fatal(err)
	}
	w := takeOver(t, old, 0, WriterOptions{})
	if err := errors.Join(w.Append(schemas.Row{schemas.StringValue("UA1"), schemas.IntValue(5)}, monday, 0), w.Commit(1)); err != nil {
		t.Fatal(err)
	}
	got := scan(t, open(t, dir), ScanOptions{Columns: []string{"raw", "delay"}})
	same(t, "grown", got, []told{{monday, 0, 0, `null:"" int:"5" `}})

	changed, err := OpenTable(dir, []Column{{"delay", schemas.String}})
	if err != nil {
		t.Fatal(err)
	}
	err = changed.Scan(context.Background(), ScanOptions{}, func(*Batch) error { return nil })
	if failure.Of(err) != failure.Corrupt || !strings.Contains(err.Error(), "delay is int64, not utf8") {
		t.Fatalf("error is %v", err)
	}
}
