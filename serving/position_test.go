package serving

import (
	"reflect"
	"testing"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/schemas"
)

// TestPositionsAreLogged reads an entity whose partition was re-keyed from several source partitions, and asks what the topic says of it.
func TestPositionsAreLogged(t *testing.T) {
	w := newWorld(t, withKafka)
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	writer := online.NewWriter(w.writer(), w.project.Name, w.group().Name, w.group().Version)
	p := partitionOf("ATL")
	position, raw, err := writer.Load(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	position.Sources = map[online.SourcePartition]int64{{Source: "arrivals", Partition: 3}: 70, {Source: "arrivals", Partition: 1}: 0}
	if _, err := writer.Commit(t.Context(), p, raw, position, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	w.promote(byDelay(0.1))
	stop := w.start()
	w.awaitReady()
	w.post(flight)
	if n := w.metric("millrace_serving_feature_freshness_seconds", "group", w.group().Name); n != 1 {
		t.Errorf("freshness was noted %v times", n)
	}
	stop()
	logged := w.predictions()
	if len(logged) != 1 {
		t.Fatalf("%d predictions", len(logged))
	}
	want := []schemas.ReadPosition{{
		Group: w.group().Name, Version: w.group().Version, Partition: p, Next: position.Next, Newest: position.Newest,
		Sources: []schemas.SourcePosition{{Source: "arrivals", Next: []int64{0, 1, 0, 71}}},
	}}
	if !reflect.DeepEqual(logged[0].Positions, want) {
		t.Errorf("%+v\nwant %+v", logged[0].Positions, want)
	}
}

func TestFreshnessIsOfTheWallClock(t *testing.T) {
	for _, c := range []struct {
		change []func(*world)
		want   float64
	}{{nil, 1}, {[]func(*world){byEvents}, 0}} {
		w := newWorld(t, c.change...)
		w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
		w.promote(byDelay(0.1))
		w.start()
		w.awaitReady()
		w.post(flight)
		if n := w.metric("millrace_serving_feature_freshness_seconds"); n != c.want {
			t.Errorf("freshness was noted %v times, want %v", n, c.want)
		}
	}
}
