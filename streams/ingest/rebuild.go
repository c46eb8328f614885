package ingest

import (
	"context"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// A partition without a position in Redis (lost, or of a new version of its group) is filled from its source's history (fill.go), once for
// all partitions of the version. Until a partition is filled its position says so (online.Filling), and until one that is read again from
// its topic's start has come to where it was (online.Position.Until), so that nobody is served what is not whole.

// filled reports whether a worker can go on from a partition's position.
func filled(l online.Loaded) bool { return len(l.Raw) > 0 && l.Position.Next != online.Filling }

// fillWait is how long a worker that starts waits for its partition to be filled, before it lets others of its consumer start; fillLook is
// between two looks.
const (
	fillWait = time.Second
	fillLook = 5 * time.Millisecond
)

// rebuild sees to it that the partition is filled, and gives what to go on from. While that takes longer it is Unavailable.
func (a *applier) rebuild(ctx context.Context, loaded online.Loaded) (online.Loaded, error) {
	over := time.NewTimer(fillWait)
	defer over.Stop()
	look := time.NewTicker(fillLook)
	defer look.Stop()
	for !filled(loaded) {
		if err := a.askForFill(a.group); err != nil {
			return loaded, err
		}
		select {
		case <-ctx.Done():
			return loaded, ctx.Err()
		case <-over.C:
			return loaded, failure.New(failure.Unavailable, a.group.Name, "partition %d of version %s is being filled from its history", a.partition, a.group.version.ID)
		case <-look.C:
		}
		var err error
		if loaded, err = a.store.LoadRows(ctx, a.partition); err != nil {
			return loaded, err
		}
	}
	return loaded, nil
}
