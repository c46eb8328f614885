package ingest

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams"
)

// A partition without a position in Redis (lost, or of a new version of its group) is computed from the start of its topic. Where
// retention has taken that start, what is missing comes from the offline events first: those of all source partitions in the order
// of event time, as training replays them, so that nothing of them is late. Kafka goes on from there: what its topic still has of
// them is told by the check that tells duplicates.
//
// The entities of the partition must fit in memory while it is rebuilt. Until all of them are in Redis the position says so, and a worker
// that finds it so begins again.
const rebuilding = -1

// rebuildBytes is the most states that one write carries while rebuilding.
const rebuildBytes = 16 << 20

// rebuild fills Redis from the offline events, if that is needed and possible, and gives what to go on from.
func (a *applier) rebuild(ctx context.Context, loaded online.Loaded) (online.Loaded, error) {
	if len(loaded.Raw) > 0 && loaded.Position.Next != rebuilding {
		return loaded, nil
	}
	first, err := streams.FirstOffset(ctx, a.producer, a.group.KeyedTopic, a.partition)
	if err != nil {
		return loaded, err
	}
	kept, err := a.kept()
	if err != nil {
		return loaded, err
	}
	switch {
	case first > 0 && len(kept) > 0:
	case loaded.Position.Next == rebuilding:
		return loaded, failure.New(failure.Corrupt, a.group.Name, "partition %d was being rebuilt from offline events that are gone", a.partition).
			WithHint("delete the group's keys in Redis")
	default:
		return loaded, nil // the topic has it all, or what it has is all there is
	}
	a.log.Info("rebuilding from offline events", "group", a.group.Name, "partition", a.partition, "topic begins at", first)
	entities, newest, err := a.replay(ctx, kept)
	if err != nil {
		return loaded, fmt.Errorf("rebuilding %s from offline events: %w", a.group.Name, err)
	}
	end := online.Position{Next: first, Newest: newest, Sources: map[online.SourcePartition]int64{}}
	for from, next := range kept {
		if !a.group.Direct {
			end.Sources[from] = next - 1
		} else if from.Partition == a.partition {
			end.Next = max(first, next)
		}
	}
	loaded.Position = end
	loaded.Raw, err = a.refill(ctx, loaded.Raw, end, entities)
	return loaded, err
}

// kept is the end of the offline events of each source partition.
func (a *applier) kept() (map[online.SourcePartition]int64, error) {
	kept := map[online.SourcePartition]int64{}
	for _, root := range a.group.roots {
		if root.events == nil {
			return nil, nil
		}
		partitions, err := root.events.Partitions()
		if err != nil {
			return nil, err
		}
		for _, p := range partitions {
			if next, err := root.events.Next(p); err != nil {
				return nil, err
			} else if next > 0 {
				kept[online.SourcePartition{Source: root.Name, Partition: p}] = next
			}
		}
	}
	return kept, nil
}

// replay computes the partition's entities from the offline events below the kept ends.
func (a *applier) replay(ctx context.Context, kept map[online.SourcePartition]int64) (entities map[string]*features.Entity, newest int64, err error) {
	events, err := offline.SourceEvents(ctx, a.deps.OfflineDir, a.group.Source, offline.ScanOptions{})
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = events.Close() }()
	entities = map[string]*features.Entity{}
	for events.Next() {
		if events.Offset() >= kept[online.SourcePartition{Source: events.Root().Name, Partition: events.Partition()}] || a.group.Direct && events.Partition() != a.partition {
			continue
		}
		row := events.Row()
		key, err := a.group.Key(row)
		if err != nil || online.Partition(key, a.group.partitions) != a.partition {
			continue // another's, or a dead letter
		}
		e := entities[key]
		if e == nil {
			e = a.group.NewEntity()
		}
		outcome, err := a.group.Add(e, row, events.Time(), a.group.Source.Sequence(events.Root(), events.Partition(), events.Offset()))
		if err != nil && !failure.Of(err).DeadLetter() {
			return nil, 0, err
		}
		if err != nil || outcome != features.Applied {
			continue
		}
		newest = max(newest, events.Time())
		if entities[key] == nil {
			entities[strings.Clone(key)] = e
		}
	}
	return entities, newest, events.Err()
}

// refill writes entities to Redis, the position with the last of them.
func (a *applier) refill(ctx context.Context, raw []byte, end online.Position, entities map[string]*features.Entity) ([]byte, error) {
	b := online.Batch{Expected: raw, TTL: a.group.expiry, RowsMode: online.RowsReplace}
	write := func(next online.Position) (err error) {
		b.Next = next
		b.Expected, err = a.store.Write(ctx, a.partition, b)
		b.Keys, b.States, b.RowsMode = nil, nil, online.RowsKeep
		return err
	}
	size := 0
	for key, e := range entities {
		state := e.AppendBinary(nil)
		size += len(state)
		b.Keys, b.States = append(b.Keys, key), append(b.States, state)
		if len(b.Keys) >= a.cfg.RebuildEntities || size >= rebuildBytes {
			if err := write(online.Position{Next: rebuilding}); err != nil {
				return nil, err
			}
			if err := a.at("group: rebuilding"); err != nil {
				return nil, err
			}
			size = 0
		}
	}
	err := write(end)
	return b.Expected, err
}
