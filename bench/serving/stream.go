package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// benchStream measures scoring a topic: records in, predictions and offsets out in one transaction. The records come all at once, and
// Kafka and their producer share the machine, so that CPU time is what to go by.
func (b *bench) benchStream(ctx context.Context, p *project.Project, server *process, rows [][]float64) error {
	client, err := streams.NewClient(streams.Config{Brokers: []string{b.kafka}})
	if err != nil {
		return err
	}
	defer client.Close()
	for _, m := range p.Models {
		cpu, began := server.cpu(), time.Now()
		if err := b.produce(ctx, client, m, rows); err != nil {
			return err
		}
		if err := b.scored(ctx, client, p, m); err != nil {
			return err
		}
		perEvent := float64((server.cpu() - cpu).Microseconds()) / float64(b.events)
		if err := json.NewEncoder(os.Stdout).Encode(map[string]any{
			"server": "millrace", "case": "in-stream " + m.Name, "events": b.events, "events_per_s": round(float64(b.events) / time.Since(began).Seconds()),
			"cpu_us_per_event": round(perEvent), "events_per_cpu_s": round(1e6 / perEvent), "rss_mib": round(server.rss()),
		}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) produce(ctx context.Context, client *kgo.Client, m *project.Model, rows [][]float64) error {
	encoder, err := schemas.NewEncoder(m.On.Schema, m.On.Format, nil, "")
	if err != nil {
		return err
	}
	first := kgo.AbortingFirstErrPromise(client)
	for i := range b.events {
		id, now := fmt.Sprint("s", i), time.Now()
		row := schemas.Row{schemas.StringValue(id), schemas.TimeValue(now.UnixMilli())}
		if m.Name == "score" {
			for _, x := range rows[i%len(rows)] {
				row = append(row, schemas.FloatValue(x))
			}
		} else {
			customer, card, merchant := asked(i)
			row = append(row, schemas.StringValue(customer), schemas.StringValue(card), schemas.StringValue(merchant), schemas.FloatValue(12.5))
		}
		value, err := encoder.Encode(ctx, row)
		if err != nil {
			return err
		}
		client.Produce(ctx, &kgo.Record{Topic: m.On.Topic, Key: []byte(id), Value: value, Timestamp: now}, first.Promise())
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	return first.Err()
}

// scored waits until all records of the model's topic have been scored for good.
func (b *bench) scored(ctx context.Context, client *kgo.Client, p *project.Project, m *project.Model) error {
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, m.On.Topic)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		committed, err := admin.FetchOffsets(ctx, p.Name+".score."+m.Name)
		if err != nil {
			return err
		}
		left := int64(0)
		ends.Each(func(end kadm.ListedOffset) {
			at, _ := committed.Lookup(end.Topic, end.Partition)
			left += end.Offset - at.At
		})
		if left <= 0 {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d records of %s are not scored", left, m.On.Topic)
		}
	}
}
