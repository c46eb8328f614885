package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// The days that the feature tests replay.
var firstDay = time.Date(2001, 4, 23, 0, 0, 0, 0, time.UTC)

// awaitApplied waits until every record of the sources has been checked and re-keyed, and every keyed record applied.
func (s *stand) awaitApplied() {
	s.t.Helper()
	ctx := context.Background()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	var groups, topics []string
	for _, source := range s.project.Sources {
		groups, topics = append(groups, fmt.Sprintf("%s.source.%s", s.project.Name, source.Name)), append(topics, source.Topic)
	}
	for _, g := range s.project.Groups {
		if g.Direct { // what its source has committed, it has applied
			continue
		}
		groups, topics = append(groups, fmt.Sprintf("%s.group.%s@%s", s.project.Name, g.Name, g.Version)), append(topics, g.KeyedTopic)
	}
	eventually(s.t, 3*time.Minute, func() (bool, string) {
		for i, group := range groups { // in the order of an event's way: what is done upstream stays done
			left, err := unread(ctx, client, group, topics[i])
			if err != nil {
				return false, err.Error()
			}
			if left > 0 {
				return false, fmt.Sprintf("%s is %d records behind on %s", group, left, topics[i])
			}
		}
		return true, ""
	})
}

// ensureTopics creates the project's topics as a role would.
func (s *stand) ensureTopics() {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	must(s.t, streams.EnsureTopics(context.Background(), client, s.project.Topology()))
}

// unread is how many records of a topic a consumer group has not committed.
func unread(ctx context.Context, client *kgo.Client, group, topic string) (int64, error) {
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, err
	}
	return uncommitted(ctx, client, group, ends)
}

// uncommitted is how many records before the given ends a consumer group has not committed.
func uncommitted(ctx context.Context, client *kgo.Client, group string, ends kadm.ListedOffsets) (int64, error) {
	committed, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if err == nil {
		err = committed.Error()
	}
	if err != nil {
		return 0, err
	}
	var left int64
	ends.Each(func(end kadm.ListedOffset) {
		if at, ok := committed.Lookup(end.Topic, end.Partition); ok {
			left += max(end.Offset-max(at.At, 0), 0)
		} else {
			left += end.Offset
		}
	})
	return left, nil
}

// featureAnswer is what GET /v1/features/{group}/{entity} says.
type featureAnswer struct {
	Features []struct {
		Name   string   `json:"name"`
		Value  *float64 `json:"value"`
		Status string   `json:"status"`
	} `json:"features"`
}

func (s *stand) features(endpoint, group, entity string, at int64) map[string]*float64 {
	s.t.Helper()
	var answer featureAnswer
	u := fmt.Sprintf("%s/v1/features/%s/%s?at=%s", endpoint, group, url.PathEscape(entity), time.UnixMilli(at).UTC().Format(time.RFC3339Nano))
	if status := get(s.t, u, &answer); status != 200 {
		s.t.Fatalf("%s answered %d", u, status)
	}
	values := map[string]*float64{}
	for _, f := range answer.Features {
		values[f.Name] = f.Value
	}
	return values
}

// checkOnline compares every feature of every airport with the oracle, as of random times from the end of the stream on,
// and within the lateness before it.
func (s *stand) checkOnline(endpoint string, o oracle, end int64) {
	s.t.Helper()
	wrong, checked := s.compareOnline(endpoint, o, end)
	s.report(wrong, checked, "online")
}

// compareOnline gives what is wrong, and how many entities and times it looked at.
func (s *stand) compareOnline(endpoint string, o oracle, end int64) (wrong []string, checked int) {
	s.t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	for group, entities := range o {
		for entity, list := range entities {
			newest := list[len(list)-1].time
			for _, at := range []int64{
				end + 1, // now
				end + random.Int64N(30*time.Hour.Milliseconds()),              // the entity has gone quiet
				newest + 1 - random.Int64N((90 * time.Minute).Milliseconds()), // the past, within the lateness
				newest + 1 + random.Int64N(9*24*time.Hour.Milliseconds()),     // long after
			} {
				wrong = append(wrong, o.check(group, entity, at, s.features(endpoint, group, entity, at))...)
				checked++
			}
		}
	}
	return wrong, checked
}

func (s *stand) report(wrong []string, checked int, where string) {
	s.t.Helper()
	if checked == 0 {
		s.t.Fatalf("%s: nothing was checked", where)
	}
	if len(wrong) > 0 {
		s.t.Fatalf("%s: %d wrong values in %d entities and times:\n%s", where, len(wrong), checked, strings.Join(wrong[:min(len(wrong), 20)], "\n"))
	}
	s.t.Logf("%s: %d entities and times right", where, checked)
}

// checkOffline compares the offline files with what was produced: every event once, and every row of feature values.
func (s *stand) checkOffline(o oracle, events []flights.Event) {
	s.t.Helper()
	s.checkOfflineEvents(events)
	s.checkOfflineFeatures(o)
}

func (s *stand) checkOfflineEvents(events []flights.Event) {
	s.t.Helper()
	if lost, double := s.compareOfflineEvents(events); len(lost)+len(double) > 0 {
		s.t.Fatalf("offline: %d events are missing (%s), %d are there more often than they were produced (%s)",
			len(lost), few(lost), len(double), few(double))
	}
}

// compareOfflineEvents gives the events that are in the offline files less often than they were produced, and those that are there more
// often, by source and flight.
func (s *stand) compareOfflineEvents(events []flights.Event) (lost, double []string) {
	s.t.Helper()
	difference := map[string]map[string]int{}
	for source := range s.topics {
		difference[source] = map[string]int{}
	}
	for _, e := range events {
		difference[e.Topic][e.Flight.ID]--
	}
	for source, counts := range difference {
		table, err := offline.EventsTable(s.data+"/offline", source, s.project.Source(source).Schema)
		must(s.t, err)
		must(s.t, table.Scan(context.Background(), offline.ScanOptions{Columns: []string{"flight_id"}}, func(b *offline.Batch) error {
			for i := range b.Len() {
				counts[b.Value(i, 0).Str()]++
			}
			return nil
		}))
		for id, n := range counts {
			switch {
			case n < 0:
				lost = append(lost, source+" "+id)
			case n > 0:
				double = append(double, source+" "+id)
			}
		}
	}
	return lost, double
}

// few is the first of a long list.
func few(list []string) string { return strings.Join(list[:min(len(list), 10)], ", ") }

func (s *stand) checkOfflineFeatures(o oracle) {
	s.t.Helper()
	ctx, root := context.Background(), s.data+"/offline"
	checked := 0
	var wrong []string
	for _, g := range s.project.Groups {
		table, err := offline.FeaturesTable(root, g.Group)
		must(s.t, err)
		columns := table.Columns()
		must(s.t, table.Scan(ctx, offline.ScanOptions{}, func(b *offline.Batch) error {
			for i := range b.Len() {
				entity := ""
				values := map[string]*float64{}
				for c, column := range columns {
					v := b.Value(i, c)
					if c == 0 {
						entity = v.Str()
						continue
					}
					values[column.Name] = nil
					if f, ok := v.Float(); ok {
						values[column.Name] = &f
					}
				}
				wrong = append(wrong, o.check(g.Name, entity, b.Time(i), values)...)
				checked++
			}
			return nil
		}))
	}
	s.report(wrong, checked, "offline")
}

func endOf(events []flights.Event) int64 { return events[len(events)-1].Time }

// TestFeatures runs one stream worker on a backlog of three days of flights.
func TestFeatures(t *testing.T) {
	s := newStand(t)
	events := sample(t, firstDay, 3*24*time.Hour)
	s.ensureTopics()
	s.produce(events)
	worker := s.start("stream")
	serve := s.start("serve")
	s.awaitApplied()
	o := newOracle(events)
	s.checkOnline(serve.endpoint, o, endOf(events))
	worker.stop() // what is pending offline is written when a worker ends
	s.checkOffline(o, events)
}

// TestTwoWorkers shares the partitions out while they are being worked on. Offline rows of feature values say what was known when event
// time had passed by the lateness. Where days arrive within a second, on partitions that were empty or belong to two processes, that
// can be less than all: the rows are checked on a backlog (TestFeatures).
func TestTwoWorkers(t *testing.T) {
	s := newStand(t)
	events := sample(t, firstDay, 3*24*time.Hour)
	a := s.start("stream")
	b := s.start("stream")
	serve := s.start("serve")
	s.produce(events)
	s.awaitApplied()
	o := newOracle(events)
	s.checkOnline(serve.endpoint, o, endOf(events))
	a.stop()
	b.stop()
	s.checkOfflineEvents(events)
}

// TestWorkersKilled kills workers at bad moments; the features must be those of an undisturbed run, online and offline.
func TestWorkersKilled(t *testing.T) {
	s := newStand(t)
	events := sample(t, firstDay, 3*24*time.Hour)
	serve := s.start("serve")
	random := rand.New(rand.NewPCG(3, 4))
	worker := s.start("stream")
	const parts = 5
	for i := range parts {
		s.produce(events[i*len(events)/parts : (i+1)*len(events)/parts])
		s.awaitProgress(random.IntN(60))
		worker.kill()
		worker = s.start("stream")
	}
	s.awaitApplied()
	o := newOracle(events)
	s.checkOnline(serve.endpoint, o, endOf(events))
	worker.stop()
	s.checkOfflineEvents(events)
}

// awaitProgress waits until a share of the keyed records, in percent, has been applied, so that a kill falls in the middle of the work.
func (s *stand) awaitProgress(percent int) {
	s.t.Helper()
	ctx := context.Background()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	g := s.project.Groups[0]
	group := fmt.Sprintf("%s.group.%s@%s", s.project.Name, g.Name, g.Version)
	eventually(s.t, time.Minute, func() (bool, string) {
		ends, err := kadm.NewClient(client).ListEndOffsets(ctx, g.KeyedTopic)
		if err != nil {
			return false, err.Error()
		}
		var total int64
		ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
		left, err := unread(ctx, client, group, g.KeyedTopic)
		if err != nil {
			return false, err.Error()
		}
		return total > 0 && (total-left)*100 >= total*int64(percent), fmt.Sprintf("%d of %d applied", total-left, total)
	})
}

// TestProcessKilled kills the whole program, embedded Kafka and Redis in it, and starts it again on its data folder.
func TestProcessKilled(t *testing.T) {
	s := newStand(t)
	events := sample(t, firstDay, 2*24*time.Hour)
	up := func() *proc {
		return startProc(t, "up", "--project", s.dir, "--data-dir", s.data, "--listen", "127.0.0.1:0")
	}
	p := up()
	s.kafka = kafkaOf(t, p)
	s.produce(events[:len(events)/2])
	s.awaitProgress(30)
	p.kill()
	p = up()
	s.kafka = kafkaOf(t, p)
	s.produce(events[len(events)/2:])
	s.awaitProgress(60)
	p.kill()
	p = up()
	s.kafka = kafkaOf(t, p)
	s.awaitApplied()
	s.awaitRebuilt(addressOf(t, p, "Redis"))
	o := newOracle(events)
	s.checkOnline(p.endpoint, o, endOf(events))
	p.stop()
	s.checkOfflineEvents(events)
}

// awaitRebuilt waits until the states of a Redis that came up empty are of all events. What is committed to Kafka does not say so: it may have
// been all of them before.
func (s *stand) awaitRebuilt(address string) {
	s.t.Helper()
	ctx := context.Background()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	states := redis.NewClient(&redis.Options{Addr: address})
	defer states.Close()
	eventually(s.t, time.Minute, func() (bool, string) {
		for _, g := range s.project.Groups {
			ends, err := kadm.NewClient(client).ListEndOffsets(ctx, g.KeyedTopic)
			if err == nil {
				err = ends.Error()
			}
			if err != nil {
				return false, err.Error()
			}
			w := online.NewWriter(states, s.project.Name, g.Name, g.Version)
			for partition, end := range ends[g.KeyedTopic] {
				if at, _, err := w.Load(ctx, partition); err != nil || at.Next < end.Offset {
					return false, fmt.Sprintf("%s/%d is applied up to %d of %d, %v", g.KeyedTopic, partition, at.Next, end.Offset, err)
				}
			}
		}
		return true, ""
	})
}

// kafkaOf is the address of the Kafka that the program has started, from what it says.
func kafkaOf(t *testing.T, p *proc) string { return addressOf(t, p, "Kafka") }

func addressOf(t *testing.T, p *proc, server string) string {
	t.Helper()
	_, after, ok := strings.Cut(p.text(), server+" ")
	address, _, _ := strings.Cut(after, ",")
	if !ok {
		t.Fatalf("the program does not say where its %s is: %s", server, p.text())
	}
	return address
}

// TestRefusedRecords sends records that can never be applied between good ones: they end on the dead-letter topic with
// their original bytes and a reason, and the good ones are applied.
func TestRefusedRecords(t *testing.T) {
	s := newStand(t)
	ctx := context.Background()
	events := sample(t, firstDay, 6*time.Hour)
	s.start("stream")
	serve := s.start("serve")
	s.produce(events[:len(events)/2])
	client, err := streams.NewClient(s.brokers())
	must(t, err)
	defer client.Close()
	bad := [][]byte{{}, []byte("not avro"), {0x02, 'X', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}}
	for i, value := range bad {
		r := &kgo.Record{Topic: s.topics[flights.Arrivals], Key: []byte(fmt.Sprintf("bad-%d", i)), Value: value}
		must(t, client.ProduceSync(ctx, r).FirstErr())
	}
	s.produce(events[len(events)/2:])
	s.awaitApplied()
	s.checkOnline(serve.endpoint, newOracle(events), endOf(events))

	reader, err := streams.NewClient(s.brokers(), kgo.ConsumeTopics(s.project.Own().DeadLetters.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	must(t, err)
	defer reader.Close()
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	letters := map[string]schemas.DeadLetter{}
	for len(letters) < len(bad) {
		fetches := reader.PollFetches(limited)
		must(t, limited.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			d, err := streams.ParseDeadLetter(r)
			must(t, err)
			letters[string(d.Key)] = d
		})
	}
	for i, value := range bad {
		d := letters[fmt.Sprintf("bad-%d", i)]
		if string(d.Value) != string(value) || d.Topic != s.topics[flights.Arrivals] || d.Reason == "" || d.Class == "" {
			t.Errorf("record %d became %+v; want its own bytes %q, its topic, a class and a reason", i, d, value)
		}
	}
}
