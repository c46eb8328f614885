package ingest

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// A record that the broker will never take becomes a dead letter. But the client gives up, with the same error, whatever else it holds for the
// partition, and what was sent behind it does not follow any more (seen.follows). So the worker starts over, and sends everything up to
// the end of that shipment one by one: what is refused then is refused for its own sake.

// permanent reports whether a broker will never take the record.
func permanent(err error) bool {
	for _, e := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// alone has the worker start over, and send everything before the source offset until one by one.
func (w *sourceWorker) alone(until int64, refused error) error {
	w.aloneUntil = max(w.aloneUntil, until)
	return failure.Wrap(failure.Unavailable, w.src.Topic, "re-keying several records at once", refused)
}

// shipAlone produces a record and waits for it; one that the broker will not take becomes a dead letter. If that is not taken either, the record
// can go nowhere, and the stage ends rather than lose it.
func (w *sourceWorker) shipAlone(ctx context.Context, original, r *kgo.Record) (taken bool, err error) {
	err = w.lone.Produce(ctx, r)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case !permanent(err):
		return false, failure.Wrap(failure.Unavailable, w.src.Topic, "re-keying", err)
	}
	letter := w.letter(original, w.src.Name, classRefused, err)
	w.counted(&letter)
	if err := w.letters.Write(ctx, letter); err != nil {
		if permanent(err) {
			return false, failure.Wrap(failure.Internal, w.src.Topic, "writing a dead letter that Kafka will not take", err).
				WithHint("raise max.message.bytes of %s above that of %s", w.deps.Project.Own().DeadLetters.Name, w.src.Topic)
		}
		return false, err
	}
	return false, nil
}
