// Package flights is the flights example: its project files, embedded so that the demo runs from any folder, and the replay
// of real US flights as the two streams that an airline's systems would have produced.
//
// A departure is known when the flight is scheduled to leave. An arrival is known only when the flight has arrived:
// scheduled + 30 min + distance/8 min + delay. Both streams are merged in event-time order, so that whoever consumes
// them knows nothing before it happened.
package flights

import (
	"container/heap"
	"context"
	"embed"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
)

// Files are the project folder's files: millrace.yaml, schemas, tests, and the sample of flights.
//
//go:embed millrace.yaml schemas tests data
var Files embed.FS

// Sample is the path in Files of the committed flights.
const Sample = "data/flights.parquet"

// Topics of the two streams.
const (
	Departures = "departures"
	Arrivals   = "arrivals"
)

// Flight is one row of the flights file.
type Flight struct {
	ID          string
	Scheduled   int64 // Unix milliseconds
	Origin      string
	Destination string
	Distance    int32 // miles
	Delay       int32 // minutes late at arrival, negative when early
}

// Arrived is when the flight's delay is known, in Unix milliseconds.
func (f Flight) Arrived() int64 {
	minutes := 30 + f.Distance/8 + f.Delay
	return f.Scheduled + int64(minutes)*time.Minute.Milliseconds()
}

// Event is a departure, or an arrival of the same flight.
type Event struct {
	Topic  string
	Time   int64 // event time, Unix milliseconds
	Flight Flight
}

// Read gives the flights of a Parquet file (date, delay, distance, origin, destination), in the file's order, which must
// be that of the scheduled time. from and until bound the scheduled time, in Unix milliseconds; 0 means no bound.
func Read(ctx context.Context, path string, from, until int64) iter.Seq2[Flight, error] {
	return func(yield func(Flight, error) bool) {
		n, last := 0, int64(0)
		err := offline.ReadParquet(ctx, path, columns, func(b *offline.Batch) error {
			for i := range b.Len() {
				n++
				f := flight(n, b, i)
				switch {
				case f.Scheduled < last:
					return failure.New(failure.BadRecord, path, "row %d is earlier than the row before it", n).WithHint("sort the file by date")
				case f.Scheduled < from:
				case until > 0 && f.Scheduled >= until, !yield(f, nil):
					return errStop
				}
				last = f.Scheduled
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(Flight{}, err)
		}
	}
}

// columns of the flights file, in the order that flight reads them.
var columns = []string{"date", "delay", "distance", "origin", "destination"}

// flight is row i of a batch, the nth of the file.
func flight(n int, b *offline.Batch, i int) Flight {
	date := b.Value(i, 0).Int()
	return Flight{
		ID:        fmt.Sprintf("%s-%07d", time.UnixMilli(date).UTC().Format("20060102"), n),
		Scheduled: date, Delay: int32(b.Value(i, 1).Int()), Distance: int32(b.Value(i, 2).Int()),
		Origin: b.Value(i, 3).Str(), Destination: b.Value(i, 4).Str(),
	}
}

// errStop ends the reading of a file whose other rows are not wanted.
var errStop = errors.New("stop")

// Events merges the departures and arrivals of flights in event-time order. At the end it gives the arrivals that are
// still under way.
func Events(flights iter.Seq2[Flight, error]) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		var air airborne
		for f, err := range flights {
			if err != nil {
				yield(Event{}, err)
				return
			}
			for len(air) > 0 && air[0].Arrived() <= f.Scheduled {
				a := heap.Pop(&air).(Flight)
				if !yield(Event{Arrivals, a.Arrived(), a}, nil) {
					return
				}
			}
			if !yield(Event{Departures, f.Scheduled, f}, nil) {
				return
			}
			heap.Push(&air, f)
		}
		for len(air) > 0 {
			a := heap.Pop(&air).(Flight)
			if !yield(Event{Arrivals, a.Arrived(), a}, nil) {
				return
			}
		}
	}
}

// airborne is the heap of flights that have departed, the next to arrive first; the flight's name breaks ties, so that
// the order is the same in every run.
type airborne []Flight

func (h airborne) Len() int { return len(h) }
func (h airborne) Less(i, j int) bool {
	if a, b := h[i].Arrived(), h[j].Arrived(); a != b {
		return a < b
	}
	return h[i].ID < h[j].ID
}
func (h airborne) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *airborne) Push(x any)   { *h = append(*h, x.(Flight)) }
func (h *airborne) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
