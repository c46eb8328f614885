package offline

import (
	"errors"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// A commit runs beside the Writer, which takes rows meanwhile, and fails at every single step; the next attempt is of the same rows.
func TestRowsBesideACommit(t *testing.T) {
	t.Parallel()
	for n, more := 0, true; more; n++ {
		for _, late := range []bool{false, true} {
			d := &faults{}
			table := open(t, t.TempDir())
			table.disk = d
			w := takeOver(t, table, 0, WriterOptions{})
			if err := feed(w, 0, 40); err != nil {
				t.Fatal(err)
			}
			at := d.failAt(n, late)
			c, err := w.Begin(40)
			if err != nil {
				t.Fatal(err)
			}
			ran := make(chan error, 1)
			go func() { ran <- c.Run() }()
			if err := feed(w, 30, 70); err != nil { // the first of them are in the commit
				t.Fatal(err)
			}
			if _, err := w.Begin(70); err == nil {
				t.Fatal("a second commit was begun beside the first")
			}
			if w.Rows() != 70 {
				t.Fatalf("%d rows wait, want 70", w.Rows())
			}
			err = w.End(c, <-ran)
			more = more && d.steps > at
			d.before, d.after = nil, nil
			if err == nil && w.Next() != 40 || err != nil && (w.Next() != 0 || failure.Of(err) != failure.Unavailable) {
				t.Fatalf("step %d (late: %v): next is %d after %v", n, late, w.Next(), err)
			}
			if err != nil {
				again, begun := w.Begin(70)
				if begun != nil || again != c {
					t.Fatalf("step %d (late: %v): the failed commit is not the next one (%v)", n, late, begun)
				}
				if err := w.End(again, again.Run()); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(w.Commit(70), w.Close()); err != nil {
				t.Fatal(err)
			}
			holds(t, table.dir, map[int32]int64{0: 70})
		}
	}
}

// An owner that lost the partition while its commit was under way keeps nothing of it.
func TestCommitOfALostPartition(t *testing.T) {
	t.Parallel()
	table := open(t, t.TempDir())
	old := takeOver(t, table, 0, WriterOptions{})
	if err := feed(old, 0, 40); err != nil {
		t.Fatal(err)
	}
	c, err := old.Begin(40)
	if err != nil {
		t.Fatal(err)
	}
	owner := takeOver(t, table, 0, WriterOptions{})
	if err := errors.Join(feed(owner, 0, 50), owner.Commit(50)); err != nil {
		t.Fatal(err)
	}
	if err := old.End(c, c.Run()); failure.Of(err) != failure.Conflict {
		t.Errorf("the commit of an owner of before gave %v", err)
	}
	if _, err := old.Begin(60); failure.Of(err) != failure.Conflict {
		t.Errorf("an owner of before may begin again: %v", err)
	}
	holds(t, table.dir, map[int32]int64{0: 50})
	if left := staged(t, table.dir); len(left) > 0 {
		t.Errorf("it left %q", left)
	}
}
