//go:build chaos

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/streams"
)

// eventRate is how many events a second are produced while servers fail, on average: they come in bursts. An arrival is two records.
const eventRate = 1500

// load produces events in their order, in the background, until it is stopped.
type load struct {
	stopping context.CancelFunc
	ended    chan struct{}

	mu     sync.Mutex
	events []flights.Event // produced so far
	err    error
}

func (s *stand) startLoad(events []flights.Event, random *rand.Rand) *load {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	recorder, err := flights.NewRecorder(s.project.Source(flights.Departures).Schema, s.project.Source(flights.Arrivals).Schema)
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{stopping: cancel, ended: make(chan struct{})}
	s.t.Cleanup(func() {
		cancel()
		<-l.ended
	})
	go func() {
		defer close(l.ended)
		defer client.Close()
		ticks := time.NewTicker(time.Second / 5)
		defer ticks.Stop()
		for next := 0; ; {
			select {
			case <-ctx.Done():
				l.fail(client.Flush(context.Background()))
				return
			case <-ticks.C:
			}
			burst := random.IntN(2 * eventRate / 5)
			if next+burst > len(events) {
				l.fail(fmt.Errorf("there are only %d events", len(events)))
				return
			}
			for _, e := range events[next : next+burst] {
				r, err := recorder.Record(ctx, e)
				if err != nil {
					l.fail(err)
					return
				}
				r.Topic = s.topics[e.Topic]
				records := []*kgo.Record{r}
				if e.Topic == flights.Arrivals {
					records = append(records, s.landing(e, r))
				}
				for _, r := range records {
					client.Produce(context.Background(), r, func(_ *kgo.Record, err error) { l.fail(err) })
				}
			}
			next += burst
			l.mu.Lock()
			l.events = events[:next]
			l.mu.Unlock()
		}
	}()
	return l
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
}

// stop ends the load and gives what was produced, all of it acknowledged.
func (l *load) stop() ([]flights.Event, error) {
	l.stopping()
	<-l.ended
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.events, l.err
}

// produced is how many events there are so far.
func (l *load) produced() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.events)
}

// awaitPresent waits until everything that is in the sources' topics now is applied, whatever comes behind it, and gives how long that took.
func (s *stand) awaitPresent(within time.Duration) time.Duration {
	s.t.Helper()
	began := time.Now()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	sources, keyed := map[string]string{}, map[string]string{} // topic by consumer group
	for _, source := range s.project.Sources {
		sources[fmt.Sprintf("%s.source.%s", s.project.Name, source.Name)] = source.Topic
	}
	for _, g := range s.project.Groups {
		if g.Direct { // what its source has committed, it has applied
			continue
		}
		keyed[fmt.Sprintf("%s.group.%s@%s", s.project.Name, g.Name, g.Version)] = g.KeyedTopic
	}
	for _, step := range []map[string]string{sources, keyed} { // what is re-keyed by now lies before the keyed topics' ends
		ends := map[string]kadm.ListedOffsets{}
		for group, topic := range step {
			eventually(s.t, within, func() (bool, string) {
				listed, err := kadm.NewClient(client).ListEndOffsets(context.Background(), topic)
				if err == nil {
					err = listed.Error()
				}
				ends[group] = listed
				return err == nil, fmt.Sprint(err)
			})
		}
		for group := range step {
			eventually(s.t, within, func() (bool, string) {
				left, err := uncommitted(context.Background(), client, group, ends[group])
				return err == nil && left == 0, fmt.Sprintf("%s is %d records behind, %v", group, left, err)
			})
		}
	}
	return time.Since(began)
}
