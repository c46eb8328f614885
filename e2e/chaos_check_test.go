//go:build chaos

package e2e

import (
	"bytes"
	"context"
	wire "encoding/binary"
	"fmt"
	"maps"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// batch is what the topic of a group says, read once from its start to its end by one reader that nothing happened to.
type batch struct {
	partitions []batchPartition
	events     map[origin]int // how often each source record is in the topic
	refused    int            // records that the engine does not take
}

type batchPartition struct {
	end      int64
	sources  map[online.SourcePartition]int64
	entities map[string]*features.Entity
}

// origin is the source record that a keyed record was made from; of a group that reads its source directly, the record itself.
type origin struct {
	partition int32
	offset    int64
}

func (s *stand) batchOf(g *project.Group) batch {
	s.t.Helper()
	ctx := context.Background()
	decoder, err := schemas.NewDecoder(g.Source.Schema, g.Source.Format, nil)
	must(s.t, err)
	b := batch{events: map[origin]int{}}
	var row schemas.Row
	s.records(g.KeyedTopic, func(ends kadm.ListedOffsets) {
		b.partitions = make([]batchPartition, len(ends[g.KeyedTopic]))
		for i := range b.partitions {
			end, _ := ends.Lookup(g.KeyedTopic, int32(i))
			b.partitions[i] = batchPartition{end: end.Offset, sources: map[online.SourcePartition]int64{}, entities: map[string]*features.Entity{}}
		}
	}, func(r *kgo.Record) {
		from, p := origin{r.Partition, r.Offset}, &b.partitions[r.Partition]
		if g.Direct {
			b.events[from]++
		} else {
			var before int64
			from, before = s.originOf(r)
			b.events[from]++
			of := online.SourcePartition{Source: g.Source.Name, Partition: from.partition}
			highest, ok := p.sources[of]
			if !ok {
				highest = -1
			}
			if from.offset <= highest || before > highest { // a copy; or sent behind one that was refused, and comes again
				return
			}
			p.sources[of] = from.offset
		}
		row, err = decoder.Decode(ctx, r.Value, row)
		must(s.t, err)
		e := p.entities[string(r.Key)]
		if e == nil {
			e = g.NewEntity()
			p.entities[string(r.Key)] = e
		}
		outcome, err := g.Add(e, row, row[g.Source.TimeIndex()].Int(), features.Sequence(from.partition, from.offset))
		if err != nil || outcome != features.Applied {
			b.refused++
		}
	})
	return b
}

// originOf reads which source record it was made from, and which one of the same partition its writer sent before it.
func (s *stand) originOf(r *kgo.Record) (from origin, before int64) {
	s.t.Helper()
	for _, h := range r.Headers {
		if h.Key == "mr-pos" && len(h.Value) == 20 {
			return origin{int32(wire.BigEndian.Uint32(h.Value)), int64(wire.BigEndian.Uint64(h.Value[4:]))}, int64(wire.BigEndian.Uint64(h.Value[12:]))
		}
	}
	s.t.Fatalf("record %d of %s/%d does not say where it comes from", r.Offset, r.Topic, r.Partition)
	return origin{}, 0
}

// records reads a topic from its start to the end that it has now.
func (s *stand) records(topic string, begin func(kadm.ListedOffsets), each func(*kgo.Record)) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	client, err := streams.NewClient(s.brokers(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(s.t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	must(s.t, err)
	must(s.t, ends.Error())
	begin(ends)
	var left int64
	ends.Each(func(o kadm.ListedOffset) { left += o.Offset })
	for left > 0 {
		fetches := client.PollFetches(ctx)
		must(s.t, ctx.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			each(r)
			left--
		})
	}
}

// compareStates compares everything in Redis with the batch, to the bit, and the keyed topics with what was produced.
func (s *stand) compareStates(redis online.Config, events []flights.Event) (entities int, wrong, lost []string) {
	s.t.Helper()
	ctx := context.Background()
	client, err := online.Open(ctx, redis)
	must(s.t, err)
	defer client.Close()
	arrivals := 0
	for _, e := range events {
		if e.Topic == flights.Arrivals {
			arrivals++
		}
	}
	for _, g := range s.project.Groups {
		b := s.batchOf(g)
		if n := arrivals - len(b.events); n != 0 {
			lost = append(lost, fmt.Sprintf("%s has %d of %d events", g.KeyedTopic, len(b.events), arrivals))
		}
		if b.refused > 0 {
			wrong = append(wrong, fmt.Sprintf("%s: %d events are refused", g.Name, b.refused))
		}
		known, err := online.NewVersions(client, s.project.Name).Load(ctx, g.Name)
		must(s.t, err)
		if active := known[0].All[known[0].Active]; active.ID != g.Version || int(active.Partitions) != len(b.partitions) {
			wrong = append(wrong, fmt.Sprintf("%s: the active version is %q of %d partitions, must be %s of %d", g.Name, active.ID, active.Partitions, g.Version, len(b.partitions)))
		}
		writer := online.NewWriter(client, s.project.Name, g.Name, g.Version)
		for i, p := range b.partitions {
			position, _, err := writer.Load(ctx, int32(i))
			must(s.t, err)
			if position.Next != p.end || !maps.Equal(position.Sources, p.sources) {
				wrong = append(wrong, fmt.Sprintf("%s/%d: the position is %+v, must be %d and %v", g.Name, i, position, p.end, p.sources))
			}
			for key, e := range p.entities {
				states, err := writer.States(ctx, int32(i), []string{key})
				must(s.t, err)
				if entities++; !bytes.Equal(states[0], e.AppendBinary(nil)) {
					wrong = append(wrong, fmt.Sprintf("%s/%d: the state of %s (%d bytes) is not the batch's", g.Name, i, key, len(states[0])))
				}
			}
		}
	}
	return entities, wrong, lost
}

// deadLetters is how many there are; no event of the sample deserves one.
func (s *stand) deadLetters() int64 {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(context.Background(), s.project.Own().DeadLetters.Name)
	must(s.t, err)
	must(s.t, ends.Error())
	var n int64
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n
}

// firstOf is the first of a list, a line each, for a failure.
func firstOf(list []string) string { return strings.Join(list[:min(len(list), 20)], "\n") }
