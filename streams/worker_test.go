package streams

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// records of consecutive offsets from first on.
func records(first int64, n int) []*kgo.Record {
	all := make([]*kgo.Record, n)
	for i := range all {
		all[i] = &kgo.Record{Offset: first + int64(i)}
	}
	return all
}

func offsets(records []*kgo.Record) (all []int64) {
	for _, r := range records {
		all = append(all, r.Offset)
	}
	return all
}

func TestInputTakesNothingFromBeforeASeek(t *testing.T) {
	in := newInput(newQueued(), func() {}, func() {})
	in.put(records(0, 3), 50) // not open yet
	in.open(10)
	in.put(records(10, 2), 50)
	in.close()
	in.put(records(12, 5), 50) // of the poll that was under way
	in.open(10)
	in.put(records(10, 3), 50)
	got, ended := in.Take()
	if want := []int64{10, 11, 12}; !slices.Equal(offsets(got), want) || ended {
		t.Errorf("took %v, %v, want %v", offsets(got), ended, want)
	}
	if in.End() != 50 {
		t.Errorf("end is %d", in.End())
	}
}

func TestInputTellsHoles(t *testing.T) {
	in := newInput(newQueued(), func() {}, func() {})
	in.open(10)
	if from, to, beyond := in.put(records(14, 2), 50); from != 10 || to != 14 || beyond {
		t.Errorf("hole is [%d, %d), %v", from, to, beyond)
	}
	if from, to, beyond := in.put(records(16, 2), 50); from != to || beyond {
		t.Errorf("hole is [%d, %d), %v", from, to, beyond)
	}
	if from, to, beyond := in.put(records(3, 2), 50); from != 18 || to != 3 || !beyond {
		t.Errorf("a topic that went back gives %d, %d, %v", from, to, beyond)
	}
}

func TestInputPauses(t *testing.T) {
	paused := false
	q := newQueued()
	queued := func(want int64, when string) {
		t.Helper()
		if n := q.records.Load(); n != want {
			t.Errorf("%d records count as queued %s, want %d", n, when, want)
		}
	}
	in := newInput(q, func() { paused = true }, func() { paused = false })
	in.open(0)
	in.hold()
	if paused {
		t.Error("paused with nothing queued")
	}
	in.put(records(0, 4), 50)
	queued(4, "when they came")
	in.hold()
	if !paused {
		t.Error("not paused with records that nobody takes")
	}
	queued(0, "of a partition on hold")
	in.Take()
	if paused {
		t.Error("still paused after everything was taken")
	}
	in.put(records(4, 2), 50)
	in.put(records(6, 2), 50)
	queued(4, "of two polls")
	in.Take()
	queued(4, "at hand")
	in.Processed(3)
	queued(1, "when some were processed")
	in.close()
	queued(0, "when the worker starts over")
	in.open(8)
	in.put(records(8, 9), 50)
	in.hold()
	in.end()
	if paused {
		t.Error("left paused when given up")
	}
	got, ended := in.Take()
	queued(0, "at the end")
	if len(got) != 9 || !ended {
		t.Errorf("took %d records, ended %v", len(got), ended)
	}
	select {
	case <-in.Ready():
	default:
		t.Error("the end cannot be seen again")
	}
}
