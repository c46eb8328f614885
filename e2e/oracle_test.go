package e2e

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/millrace/millrace/examples/flights"
)

// The oracle recomputes every feature of the flights example from the raw arrivals, by brute force. It shares no code with
// the engine: it knows nothing of tiles but the error that the engine states, W/60 at the tail.

type arrival struct {
	time  int64
	delay float64
	other string // the airport at the other end
}

// oracle is the arrivals of each airport, by group and entity, in event-time order.
type oracle map[string]map[string][]arrival

func newOracle(events []flights.Event) oracle {
	o := oracle{"origin_delays": {}, "destination_delays": {}}
	for _, e := range events {
		if e.Topic != flights.Arrivals {
			continue
		}
		f := e.Flight
		o["origin_delays"][f.Origin] = append(o["origin_delays"][f.Origin], arrival{e.Time, float64(f.Delay), f.Destination})
		o["destination_delays"][f.Destination] = append(o["destination_delays"][f.Destination], arrival{e.Time, float64(f.Delay), f.Origin})
	}
	for _, entities := range o {
		for _, list := range entities {
			sort.SliceStable(list, func(i, j int) bool { return list[i].time < list[j].time })
		}
	}
	return o
}

var windows = map[string]time.Duration{"1h": time.Hour, "3h": 3 * time.Hour, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour}

// check compares the features of one entity as of at with the raw arrivals. What is wrong is returned, one line each.
//
// A window [at-W, at) may begin up to W/60 early. Which suffix of the arrivals was taken is read off the count; that very
// suffix must then give every other feature of the window.
func (o oracle) check(group, entity string, at int64, got map[string]*float64) []string {
	var wrong []string
	fail := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	all := o[group][entity]
	end := sort.Search(len(all), func(i int) bool { return all[i].time >= at })
	known := all[:end]
	if end == 0 { // not known yet: nothing is said of it, not even that its count is 0
		for name, v := range got {
			if v != nil {
				fail("%s %s at %d: %s is %s before the first arrival", group, entity, at, name, show(v))
			}
		}
		return wrong
	}
	for name, w := range windows {
		suffix, err := o.suffix(known, at, w, got["flights_"+name])
		if err != "" {
			fail("%s %s at %d, %s: %s", group, entity, at, name, err)
			continue
		}
		for feature, want := range expect(suffix, group, name) {
			have, ok := got[feature+"_"+name]
			if !ok {
				fail("%s has no %s_%s", group, feature, name)
				continue
			}
			if problem := differ(feature, have, want); problem != "" {
				fail("%s %s at %d: %s_%s: %s", group, entity, at, feature, name, problem)
			}
		}
	}
	newest := known[len(known)-1].time
	last := got["last_delay"]
	// Arrivals of one instant have no order of their own across partitions: any of them may be the last.
	if last == nil || !slices.ContainsFunc(known, func(a arrival) bool { return a.time == newest && a.delay == *last }) {
		fail("%s %s at %d: last_delay is %v, the newest arrival's is %v", group, entity, at, show(last), known[len(known)-1].delay)
	}
	return wrong
}

// suffix is the arrivals that the count says were taken, or why it cannot be.
func (o oracle) suffix(known []arrival, at int64, w time.Duration, count *float64) ([]arrival, string) {
	from := at - w.Milliseconds()
	least := sort.Search(len(known), func(i int) bool { return known[i].time >= from })
	most := sort.Search(len(known), func(i int) bool { return known[i].time >= from-w.Milliseconds()/60 })
	if count == nil {
		return nil, "the count is null"
	}
	n := int(*count)
	first := len(known) - n
	if first > least || first < most {
		return nil, fmt.Sprintf("count is %d, must be %d to %d", n, len(known)-least, len(known)-most)
	}
	if first > 0 && first < len(known) && known[first-1].time == known[first].time {
		return nil, fmt.Sprintf("count %d cuts between arrivals of one instant", n)
	}
	return known[first:], ""
}

func expect(suffix []arrival, group, window string) map[string]*float64 {
	n := float64(len(suffix))
	distinctName := "destinations"
	if group == "destination_delays" {
		distinctName = "origins"
	}
	want := map[string]*float64{"delay_mean": nil, "delay_std": nil, "delay_p95": nil, "late_rate": nil, "delay_max": nil}
	seen := map[string]bool{}
	for _, a := range suffix {
		seen[a.other] = true
	}
	if window == "24h" {
		distinct := float64(len(seen))
		want[distinctName] = &distinct
	}
	if n == 0 {
		return want
	}
	var sum, late float64
	top := math.Inf(-1)
	delays := make([]float64, 0, len(suffix))
	for _, a := range suffix {
		sum += a.delay
		top = max(top, a.delay)
		if a.delay > 15 {
			late++
		}
		delays = append(delays, a.delay)
	}
	mean := sum / n
	var squares float64
	for _, a := range suffix {
		squares += (a.delay - mean) * (a.delay - mean)
	}
	std, rate := math.Sqrt(squares/n), late/n
	sort.Float64s(delays)
	// Any value between the order statistics around rank 0.95(n-1) is a 95th percentile; the engine's sketch takes the lower.
	p95 := delays[int(math.Floor(0.95*(n-1)))]
	want["delay_mean"], want["delay_std"], want["delay_p95"], want["late_rate"], want["delay_max"] = &mean, &std, &p95, &rate, &top
	return want
}

func differ(feature string, have, want *float64) string {
	if (have == nil) != (want == nil) {
		return fmt.Sprintf("is %s, must be %s", show(have), show(want))
	}
	if have == nil {
		return ""
	}
	tolerance := 1e-6 + 1e-9*math.Abs(*want)
	switch feature {
	case "delay_p95": // a sketch of 1 % relative accuracy
		tolerance = 0.0101*math.Abs(*want) + 1e-9
	case "destinations", "origins": // exact for small sets, then HyperLogLog
		tolerance = max(1e-9, 0.05**want)
		if *want <= 32 {
			tolerance = 1e-9
		}
	}
	if math.Abs(*have-*want) > tolerance {
		return fmt.Sprintf("is %v, must be %v", *have, *want)
	}
	return ""
}

func show(v *float64) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(*v)
}
