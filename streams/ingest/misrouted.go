package ingest

import (
	"context"
	"slices"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// misrouted makes a dead letter of a record that lies in another partition than that in which readers look for its entity. An entity is
// either served whole or not at all: all its records lie in one partition, the right one or another.
func (w *groupWorker) misrouted(it *item, key string) {
	w.strays = true
	v := &w.group.version
	err := failure.New(failure.BadRecord, w.group.Name, "entity %q belongs in partition %d of %d by partitioner %s",
		key, online.Partition(v.Partitioner, key, v.Partitions), v.Partitions, v.Partitioner)
	fitting := online.Fitting([]string{key}, []int32{w.partition}, v.Partitions)
	switch source := w.group.Source.Name; {
	case string(it.record.Key) != key:
		err = err.WithHint("the record's key is %q: the producers of %s do not key by %s; declare no partitioner, so that the group is re-keyed", it.record.Key, source, w.group.Source.Key)
	case len(fitting) > 0 && !slices.Contains(fitting, v.Partitioner):
		err = err.WithHint("the producers of %s seem to use %s: declare partitioner %s, or none, so that the group is re-keyed", source, fitting[0], fitting[0])
	default:
		err = err.WithHint("the producers of %s use another partitioner: declare none, so that the group is re-keyed", source)
	}
	w.dead(it, classMisrouted, err)
}

// checkStrays asks whether the topic was given more partitions, when records lie where they do not belong: then they are no dead letters.
func (w *groupWorker) checkStrays(ctx context.Context) error {
	if !w.strays {
		return nil
	}
	w.strays = false
	return w.checkLayout(ctx, w.group)
}
