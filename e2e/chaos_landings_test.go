//go:build chaos

package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/project"
)

// The flights example's groups are computed from re-keyed topics. The matrix has another beside them that reads its source's own topic: the
// arrivals once more, keyed by the airport that they came from. What origin_delays says, origin_landings must say, too.
const (
	landings       = "landings"
	originLandings = "origin_landings"

	landingsSource = `
  landings:
    topic: TOPIC
    schema: schemas/arrival.avsc
    format: avro
    key: origin
    partitioner: murmur2
    time: arrived
    lateness: 2h
`
	landingsGroup = `
  origin_landings:
    source: landings
    entity: origin
    windows: [1h, 3h, 24h, 7d]
    features:
      flights: count()
      delay_mean: mean(delay)
      delay_std: stddev(delay)
      delay_p95: quantile(delay, 0.95)
      delay_max: max(delay)
      late_rate: mean(delay > 15)
      destinations: {aggregate: distinct(destination), windows: [24h]}
      last_delay: {aggregate: last(delay), windows: [lifetime]}
`
)

// addLandings adds the source and its group to the project.
func (s *stand) addLandings() {
	s.t.Helper()
	path := filepath.Join(s.dir, "millrace.yaml")
	yaml, err := os.ReadFile(path)
	must(s.t, err)
	topic := s.project.Name + "." + landings
	yaml = bytes.Replace(yaml, []byte("\nsources:\n"), []byte("\nsources:"+strings.Replace(landingsSource, "TOPIC", topic, 1)), 1)
	yaml = bytes.Replace(yaml, []byte("\nfeatures:\n"), []byte("\nfeatures:"+landingsGroup), 1)
	must(s.t, os.WriteFile(path, yaml, 0o644))
	s.project, err = project.Load(s.dir)
	must(s.t, err)
	if g := s.project.Group(originLandings); g == nil || !g.Direct {
		s.t.Fatalf("%s must read its source directly", originLandings)
	}
	s.topics[landings] = topic
}

// landing is the record of an arrival on the topic of landings.
func (s *stand) landing(e flights.Event, arrival *kgo.Record) *kgo.Record {
	r := *arrival
	r.Topic, r.Key = s.topics[landings], []byte(e.Flight.Origin)
	return &r
}

// withLandings is the events and, behind them, the arrivals as landings.
func withLandings(events []flights.Event) []flights.Event {
	all := events[:len(events):len(events)]
	for _, e := range events {
		if e.Topic == flights.Arrivals {
			e.Topic = landings
			all = append(all, e)
		}
	}
	return all
}
