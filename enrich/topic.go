package enrich

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// topic is a table on a compacted topic: the record of a key holds from the time that it names, else from its own timestamp on, until the
// next. A record without a value ends the row of its key.
type topic struct {
	table   *project.Table
	loader  *Loader
	decoder schemas.Decoder
	client  *kgo.Client
	row     schemas.Row
	until   map[int32]int64 // of each partition that is not read to its end yet, where that was
}

func (l *Loader) loadTopic(ctx context.Context, t *project.Table) (func(context.Context) error, error) {
	registry, err := streams.NewRegistry(l.deps.Kafka)
	if err != nil {
		return nil, err
	}
	w := &topic{table: t, loader: l, until: map[int32]int64{}}
	if w.decoder, err = schemas.NewDecoder(t.Schema, t.Format, registry); err != nil {
		return nil, err
	}
	w.client, err = streams.NewClient(l.deps.Kafka, kgo.ConsumeTopics(t.Topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	if err := w.load(ctx); err != nil {
		w.client.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer w.client.Close()
		for {
			if err := w.poll(ctx); err != nil || ctx.Err() != nil {
				return err
			}
		}
	}, nil
}

// load reads what the topic has now.
func (w *topic) load(ctx context.Context) error {
	admin := kadm.NewClient(w.client)
	starts, err := admin.ListStartOffsets(ctx, w.table.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, w.table.Topic, "listing start offsets", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, w.table.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, w.table.Topic, "listing end offsets", err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(end.Topic, end.Partition); start.Offset < end.Offset {
			w.until[end.Partition] = end.Offset
		}
	})
	for len(w.until) > 0 {
		if err := w.poll(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	w.loader.upToDate(w.table)
	return nil
}

// poll takes the next records.
func (w *topic) poll(ctx context.Context) error {
	fetches := w.client.PollFetches(ctx)
	if ctx.Err() != nil {
		return nil
	}
	for _, e := range fetches.Errors() {
		w.loader.deps.Log.Warn("reading a table's topic", "table", w.table.Name, "topic", w.table.Topic, "error", e.Err)
	}
	var failed error
	fetches.EachRecord(func(r *kgo.Record) {
		if failed == nil && !r.Attrs.IsControl() {
			failed = w.take(ctx, r)
		}
		if until, loading := w.until[r.Partition]; loading && r.Offset+1 >= until {
			delete(w.until, r.Partition)
		}
	})
	if failed == nil && len(fetches.Errors()) == 0 {
		w.loader.upToDate(w.table)
	}
	return failed
}

// take puts one record into the table. One that cannot be read is told and passed over: the row of its key stays.
func (w *topic) take(ctx context.Context, r *kgo.Record) (err error) {
	at := r.Timestamp.UnixMilli()
	into := w.loader.tables[w.table.Name]
	if r.Value == nil {
		return into.Put(string(r.Key), at, nil)
	}
	if w.row, err = w.decoder.Decode(ctx, r.Value, w.row); err != nil {
		if failure.Of(err).DeadLetter() {
			w.loader.deps.Log.Warn("a record of a table is passed over", "table", w.table.Name, "partition", r.Partition, "offset", r.Offset, "error", err)
			return nil
		}
		return err
	}
	return w.table.Put(into, w.row, at)
}
