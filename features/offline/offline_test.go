package offline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
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

// faults is a disk on which things go wrong.
type faults struct {
	osDisk
	steps int
	// before is told the number of each step before it is made; an error keeps it from being made.
	before func(step int) error
	// after is the same, when it has been made.
	after func(step int) error
}

func (d *faults) step(do func() error) error {
	step := d.steps
	d.steps++
	if d.before != nil {
		if err := d.before(step); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	if d.after != nil {
		return d.after(step)
	}
	return nil
}

func (d *faults) MkdirAll(dir string) error {
	return d.step(func() error { return d.osDisk.MkdirAll(dir) })
}
func (d *faults) Link(from, to string) error {
	return d.step(func() error { return d.osDisk.Link(from, to) })
}
func (d *faults) Rename(from, to string) error {
	return d.step(func() error { return d.osDisk.Rename(from, to) })
}
func (d *faults) Remove(path string) error {
	return d.step(func() error { return d.osDisk.Remove(path) })
}
func (d *faults) SyncDir(dir string) error {
	return d.step(func() error { return d.osDisk.SyncDir(dir) })
}
func (d *faults) Create(dir, pattern string) (f file, err error) {
	err = d.step(func() error { f, err = d.osDisk.Create(dir, pattern); return err })
	if err != nil && f != nil {
		_ = f.Close()
	}
	return faultyFile{f, d}, err
}

type faultyFile struct {
	file
	d *faults
}

// Write leaves half of it on the disk when it fails.
func (f faultyFile) Write(p []byte) (n int, err error) {
	err = f.d.step(func() error { n, err = f.file.Write(p[:len(p)/2]); return err })
	if err != nil {
		return n, err
	}
	m, err := f.file.Write(p[len(p)/2:])
	return n + m, err
}

func (f faultyFile) Sync() error { return f.d.step(func() error { return nil }) }

// work is one owner's life on a disk: takes over, feeds and commits, and keeps trying while things are unavailable.
func work(dir string, d disk, ends ...int64) error {
	table, err := OpenTable(dir, everyKind)
	if err != nil {
		return err
	}
	table.disk = d
	var w *Writer
	again := func(do func() error) error {
		err := do()
		for tries := 0; failure.Of(err) == failure.Unavailable && tries < 3; tries++ {
			err = do()
		}
		return err
	}
	if err := again(func() (err error) { w, err = table.NewWriter(0, WriterOptions{RowsPerFile: 3}); return err }); err != nil {
		return err
	}
	for _, end := range ends {
		for o := w.Next(); o < end; o++ {
			row, at := event(0, o)
			if err := again(func() error { return w.Append(row, at, o) }); err != nil {
				return err
			}
		}
		if err := again(func() error { return w.Commit(end) }); err != nil {
			return err
		}
	}
	return w.Close()
}

// steps counts what work does on a disk where nothing goes wrong.
func steps(t *testing.T, ends ...int64) int {
	t.Helper()
	d := &faults{}
	if err := work(t.TempDir(), d, ends...); err != nil {
		t.Fatal(err)
	}
	return d.steps
}

// Every single step fails once, before it is made or after, and the same calls are made again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	ends := []int64{4, 10}
	for n := range steps(t, ends...) {
		for _, late := range []bool{false, true} {
			dir := t.TempDir()
			failed := false
			full := func(step int) error {
				if step != n || failed {
					return nil
				}
				failed = true
				return errNoSpace
			}
			d := &faults{before: full}
			if late {
				d = &faults{after: full}
			}
			if err := work(dir, d, ends...); err != nil {
				t.Fatalf("step %d (late: %v): %v", n, late, err)
			}
			if !failed {
				t.Fatalf("step %d did not happen", n)
			}
			holds(t, dir, map[int32]int64{0: 10})
		}
	}
}

func TestFullDiskIsUnavailable(t *testing.T) {
	d := &faults{}
	table := open(t, t.TempDir())
	table.disk = d
	w := takeOver(t, table, 0, WriterOptions{})
	if err := feed(w, 0, 10); err != nil {
		t.Fatal(err)
	}
	d.before = func(int) error { return errNoSpace }
	for range 5 {
		err := w.Commit(10)
		if failure.Of(err) != failure.Unavailable || !strings.Contains(err.Error(), "make room") {
			t.Fatalf("error is %v", err)
		}
		if w.Rows() != 10 || w.Next() != 0 {
			t.Fatalf("%d rows wait from %d", w.Rows(), w.Next())
		}
	}
	d.before = nil
	if err := feed(w, 10, 12); err != nil { // going on is allowed as well
		t.Fatal(err)
	}
	if err := w.Commit(12); err != nil {
		t.Fatal(err)
	}
	holds(t, table.dir, map[int32]int64{0: 12})
}

// A commit fails at every single step, and whoever makes it goes on with more rows instead of trying the same again.
func TestGoingOnAfterFailedCommit(t *testing.T) {
	t.Parallel()
	for n, more := 0, true; more; n++ {
		for _, late := range []bool{false, true} {
			d := &faults{}
			table := open(t, t.TempDir())
			table.disk = d
			w := takeOver(t, table, 0, WriterOptions{})
			if err := feed(w, 0, 4); err != nil {
				t.Fatal(err)
			}
			at := d.steps + n
			fail := func(step int) error {
				if step == at {
					return errNoSpace
				}
				return nil
			}
			if d.before = fail; late {
				d.before, d.after = nil, fail
			}
			err := w.Commit(4)
			more = more && d.steps > at
			d.before, d.after = nil, nil
			if err != nil && failure.Of(err) != failure.Unavailable {
				t.Fatalf("step %d (late: %v): %v", n, late, err)
			}
			if err := errors.Join(feed(w, 4, 7), w.Commit(7)); err != nil {
				t.Fatalf("going on after step %d (late: %v): %v", n, late, err)
			}
			holds(t, table.dir, map[int32]int64{0: 7})
		}
	}
}

// The process dies before or after every single step; the next owner goes on from what is there.
func TestCrash(t *testing.T) {
	t.Parallel()
	ends := []int64{4, 10}
	errCrash := errors.New("crash")
	for n := range steps(t, ends...) {
		dir := t.TempDir()
		d := &faults{before: func(step int) error {
			if step >= n {
				return errCrash
			}
			return nil
		}}
		if err := work(dir, d, ends...); !errors.Is(err, errCrash) && err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		next, err := open(t, dir).Next(0)
		if err != nil {
			t.Fatal(err)
		}
		readable := scan(t, open(t, dir), ScanOptions{})
		slices.SortFunc(readable, inOrderOfOffset)
		same(t, fmt.Sprintf("readers between owners, step %d", n), readable, expected(map[int32]int64{0: next}))
		if err := work(dir, &faults{}, 10, 14); err != nil {
			t.Fatalf("after step %d: %v", n, err)
		}
		holds(t, dir, map[int32]int64{0: 14})
		if left := staged(t, dir); len(left) > 0 {
			t.Fatalf("after step %d these are left: %q", n, left)
		}
	}
}

// At every single step of an owner another takes over and commits; then the first goes on as if nothing had happened.
func TestZombie(t *testing.T) {
	t.Parallel()
	ends := []int64{4, 10}
	for n := range steps(t, ends...) {
		dir := t.TempDir()
		taken := int64(-1)
		d := &faults{before: func(step int) error {
			if step != n {
				return nil
			}
			w := takeOver(t, open(t, dir), 0, WriterOptions{})
			taken = w.Next()
			write(t, w, taken+5)
			return nil
		}}
		err := work(dir, d, ends...)
		if err != nil && failure.Of(err) != failure.Conflict {
			t.Fatalf("step %d: %v", n, err)
		}
		next, nextErr := open(t, dir).Next(0)
		if nextErr != nil {
			t.Fatal(nextErr)
		}
		if err == nil && next < 10 || err != nil && next != taken+5 {
			t.Fatalf("step %d: the zombie ends with %v, the table at %d (taken over at %d)", n, err, next, taken)
		}
		holds(t, dir, map[int32]int64{0: next})
	}
}

func TestZombieLoses(t *testing.T) {
	dir := t.TempDir()
	zombie := takeOver(t, open(t, dir), 0, WriterOptions{RowsPerFile: 10})
	write(t, zombie, 20)
	if err := feed(zombie, 20, 60); err != nil {
		t.Fatal(err)
	}
	owner := takeOver(t, open(t, dir), 0, WriterOptions{})
	other := takeOver(t, open(t, dir), 1, WriterOptions{}) // of another partition: not concerned
	for range 2 {
		if err := zombie.Commit(60); failure.Of(err) != failure.Conflict {
			t.Fatalf("the zombie's commit: %v", err)
		}
	}
	write(t, owner, 45)
	write(t, other, 5)
	if err := zombie.Close(); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, map[int32]int64{0: 45, 1: 5})
	if left := staged(t, dir); len(left) > 0 {
		t.Fatalf("these are left: %q", left)
	}
}

// An owner must not clear what a later owner has staged, or the later one would commit files that are gone.
func TestStaleOwnerLeavesLaterOnesAlone(t *testing.T) {
	dir := t.TempDir()
	table := open(t, dir)
	stale := takeOver(t, table, 0, WriterOptions{})
	later := takeOver(t, open(t, dir), 0, WriterOptions{RowsPerFile: 5})
	if err := feed(later, 0, 30); err != nil {
		t.Fatal(err)
	}
	if err := table.clearStaged(0, stale.claim); err != nil {
		t.Fatal(err)
	}
	if err := later.Commit(30); err != nil {
		t.Fatal(err)
	}
	holds(t, dir, map[int32]int64{0: 30})
}

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
