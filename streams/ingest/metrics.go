package ingest

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/project"
)

// The outcomes of a record, as the label "outcome" names them.
const (
	outcomeApplied   = "applied"   // source: checked and passed on; group: added to its entity
	outcomeFiltered  = "filtered"  // not for this group
	outcomeDuplicate = "duplicate" // re-keyed twice, or told by the group's dedup
	outcomeEarly     = "early"     // sent behind a record that Kafka refused: it comes again
	outcomeDead      = "dead"      // on the dead-letter topic
)

// The kinds of workers, as the label "kind" names them.
const (
	kindSource = "source"
	kindGroup  = "group"
)

type metrics struct {
	records       *prometheus.CounterVec
	dead          *prometheus.CounterVec
	late          *prometheus.CounterVec
	restarts      *prometheus.CounterVec
	skipped       *prometheus.CounterVec
	lost          *prometheus.CounterVec
	ahead         *prometheus.CounterVec
	flushSeconds  *prometheus.HistogramVec
	flushEntities *prometheus.HistogramVec
	flushRecords  *prometheus.CounterVec
	flushBytes    *prometheus.CounterVec
	readable      *prometheus.HistogramVec
	eventReadable *prometheus.HistogramVec
	cacheLookups  *prometheus.CounterVec
	offlineRows   *prometheus.CounterVec
	offlineWrites *prometheus.HistogramVec
	lookupsMissed *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 16) // half a millisecond to 16 s
	m := &metrics{
		records:       counter("records_total", "Records by what became of them.", "kind", "name", "outcome"),
		dead:          counter("dead_letters_total", "Dead letters written, by class.", "kind", "name", "class"),
		late:          counter("late_total", "Events older than everything their group keeps.", "group"),
		restarts:      counter("restarts_total", "Times a partition's worker started over from its stored position, by the kind of the failure.", "kind", "name", "reason"),
		skipped:       counter("skipped_offsets_total", "Offsets that the topic did not have (any more): retention, aborted transactions, compaction.", "kind", "name"),
		lost:          counter("lost_offsets_total", "Offsets that retention deleted before they were read, though those before them had been: their events are in no feature.", "kind", "name"),
		ahead:         counter("unguarded_future_total", "Events more than an hour ahead of the clock that were accepted because their source declares no future.", "source"),
		flushSeconds:  histogram("flush_seconds", "Time of one write of states and position to Redis.", seconds, "group"),
		flushEntities: histogram("flush_entities", "Entities of one write.", prometheus.ExponentialBuckets(1, 4, 9), "group"),
		flushRecords:  counter("flush_records_total", "Records that writes to Redis carried; by those of flush_entities, how many one write of a state stands for.", "group"),
		flushBytes:    counter("flush_bytes_total", "Bytes of states written to Redis.", "group"),
		readable:      histogram("poll_to_readable_seconds", "From the fetch of the first event of a write until it can be read in Redis.", seconds, "group"),
		eventReadable: histogram("event_to_readable_seconds", "From the timestamp of the first record of a write (the producer's, or the broker's where the topic says so) until its event can be read in Redis; not under clock: event.", prometheus.ExponentialBuckets(0.005, 2, 18), "group"),
		cacheLookups:  counter("cache_lookups_total", "Entities looked for in the cache: hit, miss, or new where there can be none in Redis either.", "group", "result"),
		offlineRows:   counter("offline_rows_total", "Rows appended for the offline files.", "kind", "name"),
		offlineWrites: histogram("offline_commit_seconds", "Time of one commit of offline rows.", seconds, "kind", "name"),
	}
	m.lookupsMissed = counter("lookups_missed_total", "Events whose key a table did not have as of their time: the columns are null.", "source", "table")
	for _, c := range []prometheus.Collector{
		m.lookupsMissed,
		m.records, m.dead, m.late, m.restarts, m.skipped, m.lost, m.ahead, m.flushSeconds, m.flushEntities, m.flushRecords, m.flushBytes, m.readable, m.eventReadable,
		m.cacheLookups, m.offlineRows, m.offlineWrites,
	} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "ingest", Name: name, Help: help}, labels)
}

func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "millrace", Subsystem: "ingest", Name: name, Help: help, Buckets: buckets}, labels)
}

// tally is the counters of one source or group, looked up once.
type tally struct {
	applied, filtered, duplicate, early, dead prometheus.Counter
	letters                                   *prometheus.CounterVec // by class
	offlineRows                               prometheus.Counter
	offlineWrite                              prometheus.Observer
}

func (m *metrics) tally(kind, name string) tally {
	outcome := func(o string) prometheus.Counter { return m.records.WithLabelValues(kind, name, o) }
	return tally{
		applied: outcome(outcomeApplied), filtered: outcome(outcomeFiltered), duplicate: outcome(outcomeDuplicate),
		early:        outcome(outcomeEarly),
		dead:         outcome(outcomeDead),
		letters:      m.dead.MustCurryWith(prometheus.Labels{"kind": kind, "name": name}),
		offlineRows:  m.offlineRows.WithLabelValues(kind, name),
		offlineWrite: m.offlineWrites.WithLabelValues(kind, name),
	}
}

// What a scrape asks of the partitions themselves.
var (
	lagDesc    = prometheus.NewDesc("millrace_ingest_lag_records", "Records between a partition's end and what is done, over the partitions of this process.", []string{"kind", "name"}, nil)
	freshDesc  = prometheus.NewDesc("millrace_ingest_freshness_seconds", "Event time from the newest event applied until now: of the clock, or under clock: event of the newest event that a source of this process has seen.", []string{"kind", "name"}, nil)
	newestDesc = prometheus.NewDesc("millrace_ingest_newest_event_time_seconds", "Newest event time applied, over the partitions of this process.", []string{"kind", "name"}, nil)
	ownedDesc  = prometheus.NewDesc("millrace_ingest_partitions", "Partitions that this process works on.", []string{"kind", "name"}, nil)
)

// Describe makes the stage a prometheus.Collector.
func (s *Stage) Describe(to chan<- *prometheus.Desc) {
	to <- lagDesc
	to <- newestDesc
	to <- freshDesc
	to <- ownedDesc
}

// Collect gives lag, freshness, newest event time and number of partitions of each source and group.
func (s *Stage) Collect(to chan<- prometheus.Metric) {
	type owner struct{ kind, name string }
	type sums struct{ lag, newest, owned float64 }
	all := map[owner]sums{}
	now := float64(s.deps.Clock().UnixMilli()) / 1000
	event := s.deps.Project.Clock == project.ClockEvent
	if event {
		now = 0
	}
	for _, p := range s.Status() {
		o := owner{p.Kind, p.Name}
		sum := all[o]
		sum.lag += float64(max(p.End-p.Next, 0))
		sum.newest = max(sum.newest, float64(p.Newest)/1000)
		sum.owned++
		all[o] = sum
		if event {
			now = max(now, sum.newest)
		}
	}
	for o, sum := range all {
		to <- prometheus.MustNewConstMetric(lagDesc, prometheus.GaugeValue, sum.lag, o.kind, o.name)
		to <- prometheus.MustNewConstMetric(newestDesc, prometheus.GaugeValue, sum.newest, o.kind, o.name)
		if sum.newest > 0 {
			to <- prometheus.MustNewConstMetric(freshDesc, prometheus.GaugeValue, now-sum.newest, o.kind, o.name)
		}
		to <- prometheus.MustNewConstMetric(ownedDesc, prometheus.GaugeValue, sum.owned, o.kind, o.name)
	}
}
