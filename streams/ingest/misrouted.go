package ingest

import (
	"context"
	"slices"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// misrouted makes a dead letter of a record that lies in another partition than that in which readers look for its entity. An entity is
// either served whole or not at all: all its records lie in one partition, the right one or another.
func (a *applier) misrouted(it *item, key string) {
	a.strays = true
	v := &a.group.version
	err := failure.New(failure.BadRecord, a.group.Name, "entity %q belongs in partition %d of %d by partitioner %s",
		key, online.Partition(v.Partitioner, key, v.Partitions), v.Partitions, v.Partitioner)
	fitting := online.Fitting([]string{key}, []int32{a.partition}, v.Partitions)
	switch source := a.group.Source.Name; {
	case string(it.record.Key) != key:
		err = err.WithHint("the record's key is %q: the producers of %s do not key by %s; declare no partitioner, so that the group is re-keyed", it.record.Key, source, a.group.Source.Key)
	case len(fitting) > 0 && !slices.Contains(fitting, v.Partitioner):
		err = err.WithHint("the producers of %s seem to use %s: declare partitioner %s, or none, so that the group is re-keyed", source, fitting[0], fitting[0])
	default:
		err = err.WithHint("the producers of %s use another partitioner: declare none, so that the group is re-keyed", source)
	}
	a.dead(it, classMisrouted, err)
}

// checkStrays asks whether the topic was given more partitions, when records lie where they do not belong: then they are no dead letters.
func (a *applier) checkStrays(ctx context.Context) error {
	if !a.strays {
		return nil
	}
	a.strays = false
	return a.checkLayout(ctx, a.group)
}
