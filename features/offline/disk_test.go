package offline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// faults is a disk on which things go wrong.
type faults struct {
	osDisk
	steps int
	// before is told the number of each step before it is made; an error keeps it from being made.
	before func(step int) error
	// after is the same, when it has been made.
	after func(step int) error
}

// failAt has the nth step from now fail, before it is done or, late, afterwards. It gives the number of the step.
func (f *faults) failAt(n int, late bool) (at int) {
	at = f.steps + n
	fail := func(step int) error {
		if step == at {
			return errNoSpace
		}
		return nil
	}
	if f.before = fail; late {
		f.before, f.after = nil, fail
	}
	return at
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
			at := d.failAt(n, late)
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
