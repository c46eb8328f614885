package main

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/internal/failure"
)

// replayCommand produces the flights to the example's topics.
type replayCommand struct {
	servers `embed:""`
	Data    string        `help:"Flights file (Parquet: date, delay, distance, origin, destination); the project's data/flights.parquet by default." type:"existingfile"`
	From    time.Time     `help:"First scheduled time, RFC 3339." `
	Until   time.Time     `help:"Scheduled time to stop before, RFC 3339."`
	Rate    float64       `help:"Events per second; 0 is as fast as the brokers take them." default:"0"`
	Every   time.Duration `hidden:"" default:"1s"`
}

func (c *replayCommand) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	if err := rt.ensureTopics(ctx); err != nil {
		return err
	}
	path := c.Data
	if path == "" {
		path = rt.path(flights.Sample)
	}
	p, err := newProducer(ctx, rt)
	if err != nil {
		return err
	}
	defer p.close()
	started := time.Now()
	last := started
	for e, err := range flights.Events(flights.Read(ctx, path, millis(c.From), millis(c.Until))) {
		if err != nil {
			return err
		}
		if err := p.produce(ctx, e); err != nil {
			return err
		}
		if c.Rate > 0 {
			due := started.Add(time.Duration(float64(p.sent) / c.Rate * float64(time.Second)))
			if err := sleepUntil(ctx, due); err != nil {
				return err
			}
		}
		if time.Since(last) > c.Every {
			last = time.Now()
			fmt.Fprintf(env.out, "%d events, event time %s\n", p.sent, stamp(e.Time))
		}
	}
	if err := p.flush(ctx); err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%d events produced in %.1fs\n", p.sent, time.Since(started).Seconds())
	return nil
}

// producer sends flight events to Kafka; it is for one goroutine. A record that is not acknowledged is an error of the next
// call, so nothing is lost silently.
type producer struct {
	client   *kgo.Client
	recorder *flights.Recorder
	topics   map[string]string // of the project, by the flights' own names
	sent     int64
	failed   chan error
}

func newProducer(ctx context.Context, rt *runtime) (*producer, error) {
	departures, arrivals := rt.project.Source(flights.Departures), rt.project.Source(flights.Arrivals)
	if departures == nil || arrivals == nil {
		return nil, failure.New(failure.BadProject, rt.project.Dir, "the project has no sources %q and %q", flights.Departures, flights.Arrivals).
			WithHint("flights can only be produced to the flights example, or a project with its sources")
	}
	recorder, err := flights.NewRecorder(departures.Schema, arrivals.Schema)
	if err != nil {
		return nil, err
	}
	client, err := rt.kafkaClient(ctx, kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(100_000),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()))
	if err != nil {
		return nil, err
	}
	topics := map[string]string{flights.Departures: departures.Topic, flights.Arrivals: arrivals.Topic}
	return &producer{client: client, recorder: recorder, topics: topics, failed: make(chan error, 1)}, nil
}

func (p *producer) produce(ctx context.Context, e flights.Event) error {
	r, err := p.recorder.Record(ctx, e)
	if err != nil {
		return err
	}
	select {
	case err := <-p.failed:
		return err
	default:
	}
	r.Topic = p.topics[e.Topic]
	p.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			select {
			case p.failed <- failure.Wrap(failure.Unavailable, e.Topic, "producing flights", err):
			default:
			}
		}
	})
	p.sent++
	return nil
}

// flush waits until everything produced is acknowledged.
func (p *producer) flush(ctx context.Context) error {
	if err := p.client.Flush(ctx); err != nil {
		return failure.Wrap(failure.Unavailable, "", "flushing flights", err)
	}
	select {
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}

func (p *producer) close() { p.client.Close() }

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// stamp prints an event time.
func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04") }

func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
