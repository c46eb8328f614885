package flights

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
)

// Recorder turns events into Kafka records: bare Avro, keyed by flight_id, timestamped with the event time.
type Recorder struct {
	departures, arrivals schemas.Encoder
	row                  schemas.Row
}

// NewRecorder takes the schemas of the two sources.
func NewRecorder(departures, arrivals *schemas.Schema) (*Recorder, error) {
	d, err := schemas.NewEncoder(departures, schemas.Avro, nil, "")
	if err != nil {
		return nil, err
	}
	a, err := schemas.NewEncoder(arrivals, schemas.Avro, nil, "")
	if err != nil {
		return nil, err
	}
	return &Recorder{departures: d, arrivals: a}, nil
}

// Record encodes an event. It is for one goroutine.
func (r *Recorder) Record(ctx context.Context, e Event) (*kgo.Record, error) {
	f := e.Flight
	var enc schemas.Encoder
	switch e.Topic {
	case Departures: // flight_id, scheduled, origin, destination, distance
		enc = r.departures
		r.row = append(r.row[:0], schemas.StringValue(f.ID), schemas.TimeValue(f.Scheduled),
			schemas.StringValue(f.Origin), schemas.StringValue(f.Destination), schemas.IntValue(int64(f.Distance)))
	case Arrivals: // flight_id, arrived, origin, destination, delay
		enc = r.arrivals
		r.row = append(r.row[:0], schemas.StringValue(f.ID), schemas.TimeValue(f.Arrived()),
			schemas.StringValue(f.Origin), schemas.StringValue(f.Destination), schemas.IntValue(int64(f.Delay)))
	default:
		return nil, fmt.Errorf("flights have no topic %q", e.Topic)
	}
	value, err := enc.Encode(ctx, r.row)
	if err != nil {
		return nil, fmt.Errorf("encoding flight %s: %w", f.ID, err)
	}
	return &kgo.Record{Topic: e.Topic, Key: []byte(f.ID), Value: value, Timestamp: time.UnixMilli(e.Time)}, nil
}
