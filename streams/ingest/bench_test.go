package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// BenchmarkFlights works off the flights of the example, departures and arrivals with their two groups, from the first record on Kafka to
// the last state in Redis. One operation is all of them. Kafka and Redis are embedded, and their CPU is counted, unless the environment names others.
func BenchmarkFlights(b *testing.B) {
	dir := b.TempDir()
	folder := filepath.Join(dir, "flights")
	if err := os.CopyFS(folder, flights.Files); err != nil && !os.IsExist(err) {
		b.Fatal(err)
	}
	p, err := project.Load(folder)
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		p.TopicPrefix, p.Name = fmt.Sprintf("bench%d-%d-", time.Now().UnixMilli(), i), fmt.Sprintf("bench%d", time.Now().UnixNano())
		for _, s := range p.Sources {
			s.Topic = p.TopicPrefix + s.Name
		}
		for _, g := range p.Groups {
			g.KeyedTopic = p.TopicPrefix + g.Name + ".keyed"
		}
		benchmarkFlights(b, p, folder, filepath.Join(dir, fmt.Sprint(i)))
	}
}

func benchmarkFlights(b *testing.B, p *project.Project, folder, dir string) {
	b.StopTimer()
	kafka := os.Getenv("MILLRACE_TEST_KAFKA")
	if kafka == "" {
		embedded, err := broker.Start(filepath.Join(dir, "kafka"), 0)
		if err != nil {
			b.Fatal(err)
		}
		defer embedded.Close()
		kafka = embedded.Addr()
	}
	addr := os.Getenv("MILLRACE_TEST_REDIS")
	if addr == "" {
		embedded, err := online.StartEmbedded("")
		if err != nil {
			b.Fatal(err)
		}
		defer embedded.Close()
		addr = embedded.Addr()
	}
	config := streams.Config{Brokers: []string{kafka}, Compression: "none"}
	redis, err := online.Open(b.Context(), online.Config{Addrs: []string{addr}})
	if err != nil {
		b.Fatal(err)
	}
	defer redis.Close()
	redis.FlushAll(b.Context())
	total := produceFlights(b, p, folder, config)
	s, err := New(Default(), Deps{
		Project: p, Kafka: config, Redis: redis, OfflineDir: filepath.Join(dir, "offline"), Clock: clock.System,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	before := cpu()
	b.StartTimer()
	began := time.Now()
	go func() { ended <- s.Run(ctx) }()
	for !worked(s, p, total) {
		select {
		case err := <-ended:
			b.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	took := time.Since(began)
	b.StopTimer()
	var events int64
	for _, n := range total {
		events += n
	}
	b.ReportMetric(float64(events)/took.Seconds(), "events/s")
	b.ReportMetric(float64(total[flights.Arrivals])/took.Seconds(), "arrivals/s")
	b.ReportMetric((cpu()-before).Seconds()/float64(events)*1e6, "cpu-s/Mevent")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// worked reports whether every source is re-keyed and every group is at the end.
func worked(s *Stage, p *project.Project, total map[string]int64) bool {
	done := map[string]int64{}
	for _, each := range s.Status() {
		done[each.Kind+each.Name] += each.Next
	}
	for _, src := range p.Sources {
		if done[kindSource+src.Name] < total[src.Name] {
			return false
		}
	}
	for _, g := range p.Groups {
		if done[kindGroup+g.Name] < total[g.Source.Name] {
			return false
		}
	}
	return true
}

func produceFlights(b *testing.B, p *project.Project, folder string, config streams.Config) map[string]int64 {
	client, err := streams.NewClient(config)
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	if err := streams.EnsureTopics(b.Context(), client, p.Topology()); err != nil {
		b.Fatal(err)
	}
	recorder, err := flights.NewRecorder(p.Source("departures").Schema, p.Source("arrivals").Schema)
	if err != nil {
		b.Fatal(err)
	}
	total := map[string]int64{}
	for e, err := range flights.Events(flights.Read(b.Context(), filepath.Join(folder, filepath.FromSlash(flights.Sample)), 0, 0)) {
		if err != nil {
			b.Fatal(err)
		}
		r, err := recorder.Record(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		total[e.Topic]++
		r.Topic = p.Source(e.Topic).Topic
		client.Produce(b.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := client.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	return total
}

// cpu is the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
