package offline

import (
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

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
