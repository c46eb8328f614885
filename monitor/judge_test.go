package monitor

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/schemas"
)

const day = int64(24 * time.Hour / time.Millisecond)

// stream is a seeded source of rows, window after window.
type stream struct {
	random  *rand.Rand
	columns int
	level   []float64 // of each column in this window, where levels wander
	row     []float64
	// wander is the autocorrelation of a column's level from window to window, and spread its standard deviation; within a window
	// rows have autocorrelation rho.
	wander, spread, rho float64
	state               []float64
}

func newStream(seed uint64, columns int) *stream {
	return &stream{random: rand.New(rand.NewPCG(seed, 7)), columns: columns, level: make([]float64, columns), row: make([]float64, columns), state: make([]float64, columns)}
}

func (s *stream) nextWindow() {
	for i := range s.level {
		s.level[i] = s.wander*s.level[i] + math.Sqrt(1-s.wander*s.wander)*s.spread*s.random.NormFloat64()
	}
}

func (s *stream) next() []float64 {
	for i := range s.row {
		s.state[i] = s.rho*s.state[i] + math.Sqrt(1-s.rho*s.rho)*s.random.NormFloat64()
		s.row[i] = s.state[i] + s.level[i]
	}
	return s.row
}

// baseline profiles so many chunks of n rows.
func (s *stream) baseline(chunks, n int) *profile.Baseline {
	names, columns, chunk := make([]string, s.columns), make([][]float64, s.columns), make([]int, 0, chunks*n)
	for i := range names {
		names[i] = fmt.Sprintf("x%02d", i)
	}
	for c := range chunks {
		s.nextWindow()
		for range n {
			for i, v := range s.next() {
				columns[i] = append(columns[i], v)
			}
			chunk = append(chunk, c)
		}
	}
	b := profile.Build(names, columns, chunk)
	return b
}

// window makes window number i of n rows, each changed by change.
func (s *stream) window(b *profile.Baseline, i, n int, change func(row []float64)) ClosedWindow {
	w := ClosedWindow{Start: int64(i) * day, End: int64(i+1) * day, Profile: b.NewWindow()}
	s.nextWindow()
	for range n {
		row := s.next()
		if change != nil {
			change(row)
		}
		w.Profile.Add(row)
	}
	return w
}

// repeat runs independent repetitions on all cores and sums what they count.
func repeat(repetitions int, run func(seed uint64) [3]int) (total [3]int) {
	var wait sync.WaitGroup
	var lock sync.Mutex
	seeds := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for seed := range seeds {
				counts := run(seed)
				lock.Lock()
				for i, n := range counts {
					total[i] += n
				}
				lock.Unlock()
			}
		})
	}
	for seed := range repetitions {
		seeds <- uint64(seed)
	}
	close(seeds)
	wait.Wait()
	return total
}

// mostOf is the count that n trials of probability p exceed once in a thousand times.
func mostOf(n int, p float64) int {
	b := distuv.Binomial{N: float64(n), P: p}
	for k := int(float64(n) * p); ; k++ {
		if b.CDF(float64(k)) >= 0.999 {
			return k
		}
	}
}

// falseAlarms counts, over seeded streams in which nothing changes, the windows with a column over its threshold, the confirmed
// drifts, and the windows.
func falseAlarms(shape stream, repetitions, chunks, n, windows int) [3]int {
	return repeat(repetitions, func(seed uint64) [3]int {
		s := newStream(seed, shape.columns)
		s.rho, s.wander, s.spread = shape.rho, shape.wander, shape.spread
		b := s.baseline(chunks, n)
		policy := DefaultPolicy()
		policy.MinRows, policy.MinValues = int64(n), int64(n)
		j := NewJudge("m", "d", b, policy, 0)
		var counts [3]int
		for i := range windows {
			v := j.Close(s.window(b, i, n, nil))
			counts[2]++
			for _, c := range v.Full.Columns {
				if c.Value > c.Threshold {
					counts[0]++
					break
				}
			}
			for _, e := range v.Events {
				if e.Kind == schemas.DriftConfirmed {
					counts[1]++
				}
			}
		}
		return counts
	})
}

// TestStreamsWithoutChangeStayQuiet holds the stated rates: a window of twenty columns has one over its threshold at most once in
// twenty times, and drift is confirmed in at most one window of two hundred. Levels that wander over weeks, of which the baseline
// saw a few turns only, are the hard case: there it is one in eight and one in thirty.
func TestStreamsWithoutChangeStayQuiet(t *testing.T) {
	const chunks, rows, windows = 14, 100, 4
	for _, c := range []struct {
		name            string
		shape           stream
		repetitions     int
		over, confirmed float64
	}{
		{"independent rows", stream{columns: 20}, 300, 0.05, 0.005},
		{"rows with autocorrelation 0.9", stream{columns: 20, rho: 0.9}, 80, 0.05, 0.005},
		{"rows with autocorrelation 0.99", stream{columns: 20, rho: 0.99}, 40, 0.05, 0.005},
		{"levels that differ from window to window", stream{columns: 20, spread: 0.3}, 150, 0.05, 0.005},
		{"levels that wander over windows", stream{columns: 20, spread: 0.3, wander: 0.7}, 60, 0.125, 0.033},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := falseAlarms(c.shape, c.repetitions, chunks, rows, windows)
			t.Logf("%d of %d windows with a column over, %d confirmed", got[0], got[2], got[1])
			if most := mostOf(got[2], c.over); got[0] > most {
				t.Errorf("%d of %d windows have a column over its threshold, more than %d", got[0], got[2], most)
			}
			if most := mostOf(got[2], c.confirmed); got[1] > most {
				t.Errorf("%d of %d windows confirm a drift, more than %d", got[1], got[2], most)
			}
		})
	}
}

// TestHalfASigmaInOneOfTwentyColumnsIsFoundInTwoWindows measures detection.
func TestHalfASigmaInOneOfTwentyColumnsIsFoundInTwoWindows(t *testing.T) {
	const repetitions, rows = 24, 500
	got := repeat(repetitions, func(seed uint64) [3]int {
		s := newStream(seed+1000, 20)
		b := s.baseline(20, rows)
		j := NewJudge("m", "d", b, DefaultPolicy(), 0)
		for i := range 2 {
			v := j.Close(s.window(b, i, rows, func(row []float64) { row[7] += 0.5 }))
			if i == 1 && v.Retrain != nil && strings.HasPrefix(v.Full.Reason, "x07 confirmed") {
				return [3]int{1}
			}
		}
		return [3]int{}
	})
	t.Logf("found in %d of %d", got[0], repetitions)
	if got[0] < repetitions*95/100 {
		t.Errorf("found in %d of %d", got[0], repetitions)
	}
}

func kinds(events []schemas.Drift) (out []string) {
	for _, e := range events {
		out = append(out, e.Kind)
	}
	return out
}

// TestOneEventPerTransition follows a drift that comes and goes, through its hysteresis.
func TestOneEventPerTransition(t *testing.T) {
	s := newStream(1, 5)
	b := s.baseline(20, 500)
	p := DefaultPolicy()
	p.Cooldown = 3 * 24 * time.Hour
	j := NewJudge("m", "d", b, p, 0)
	const closed = schemas.DriftWindowClosed
	steps := []struct {
		shift   float64
		kinds   []string
		state   string
		retrain bool
	}{
		{0, []string{closed}, StateOK, false},
		{1, []string{schemas.DriftSuspected, closed}, StateSuspected, false},
		{1, []string{schemas.DriftConfirmed, closed}, StateConfirmed, true},
		{1, []string{closed}, StateConfirmed, false},
		{1, []string{closed}, StateConfirmed, false},
		{1, []string{closed}, StateConfirmed, true}, // three days later, still no new model
		{0, []string{closed}, StateConfirmed, false},
		{0, []string{closed}, StateConfirmed, false},
		{0, []string{schemas.DriftResolved, closed}, StateOK, false},
		{0, []string{closed}, StateOK, false},
	}
	ids := map[string]bool{}
	for i, step := range steps {
		v := j.Close(s.window(b, i, 500, func(row []float64) { row[2] += step.shift }))
		if got := kinds(v.Events); !slices.Equal(got, step.kinds) {
			t.Errorf("window %d: events %v, want %v (%s)", i, got, step.kinds, v.Full.Reason)
		}
		if v.Full.State != step.state || (v.Retrain != nil) != step.retrain {
			t.Errorf("window %d: state %s, retrain %v; want %s, %v", i, v.Full.State, v.Retrain != nil, step.state, step.retrain)
		}
		if v.Full.State == StateConfirmed && v.Retrain == nil && v.Suppressed != "cooldown" {
			t.Errorf("window %d: no request, and suppressed by %q", i, v.Suppressed)
		}
		for _, e := range v.Events {
			if ids[e.ID] {
				t.Errorf("window %d: id %s is not new", i, e.ID)
			}
			ids[e.ID] = true
		}
		if v.Retrain != nil && (v.Retrain.Until != int64(i+1)*day || !ids[v.Retrain.DriftID]) {
			t.Errorf("window %d: request %+v", i, v.Retrain)
		}
	}
}

func TestANullBurstIsFoundAtOnceAndIsNoDrift(t *testing.T) {
	s := newStream(2, 20)
	b := s.baseline(20, 500)
	j := NewJudge("m", "d", b, DefaultPolicy(), 0)
	burst := func(row []float64) {
		if s.random.Float64() < 0.15 {
			row[4] = math.NaN()
		}
	}
	v := j.Close(s.window(b, 0, 500, burst))
	if got := kinds(v.Events); !slices.Equal(got, []string{schemas.DriftQuality, schemas.DriftWindowClosed}) {
		t.Fatalf("events %v", got)
	}
	if q := v.Events[0]; len(q.Columns) != 1 || q.Columns[0].Column != "x04" || q.State != StateConfirmed || math.Abs(q.Columns[0].NullRate-0.15) > 0.06 {
		t.Errorf("%+v", q)
	}
	if v := j.Close(s.window(b, 1, 500, burst)); len(v.Events) != 1 {
		t.Errorf("a burst that goes on: events %v", kinds(v.Events))
	}
	v = j.Close(s.window(b, 2, 500, nil))
	if got := kinds(v.Events); !slices.Equal(got, []string{schemas.DriftQuality, schemas.DriftWindowClosed}) || v.Events[0].State != StateOK {
		t.Errorf("after the burst: events %v", got)
	}
	if j.State() != StateOK {
		t.Errorf("state %s", j.State())
	}
}

func TestAWindowThatCannotBeJudgedChangesNothing(t *testing.T) {
	s := newStream(3, 5)
	b := s.baseline(20, 500)
	j := NewJudge("m", "d", b, DefaultPolicy(), 0)
	shift := func(row []float64) { row[0] += 2 }
	for i, w := range []ClosedWindow{s.window(b, 0, 199, shift), s.window(b, 1, 500, shift)} {
		if i == 1 {
			w.Partial = "the model changed"
		}
		v := j.Close(w)
		if v.Full.State != StateInsufficient || v.Full.Reason == "" || len(v.Events) != 1 || j.State() != StateOK {
			t.Errorf("window %d: %s (%s), events %v", i, v.Full.State, v.Full.Reason, kinds(v.Events))
		}
	}
}

func TestExcludedColumnsAndMinColumns(t *testing.T) {
	s := newStream(4, 5)
	b := s.baseline(20, 500)
	p := DefaultPolicy()
	p.Exclude, p.MinColumns = []string{"x0[01]"}, 2
	j := NewJudge("m", "d", b, p, 0)
	for i := range 3 {
		v := j.Close(s.window(b, i, 500, func(row []float64) { row[0] += 2; row[1] += 2; row[2] += 2 }))
		if v.Full.State == StateConfirmed {
			t.Errorf("window %d is confirmed by one column: %s", i, v.Full.Reason)
		}
	}
	for i := range 2 {
		v := j.Close(s.window(b, 3+i, 500, func(row []float64) { row[2] += 2; row[3] += 2 }))
		if i == 1 && v.Full.State != StateConfirmed {
			t.Errorf("two columns: %s", v.Full.Reason)
		}
	}
}

// labelled makes outcomes whose scores rank as well as the given strength.
func labelled(r *rand.Rand, n int, strength float64) (scores, labels []float64, o *profile.Outcomes) {
	o = &profile.Outcomes{}
	for range n {
		x := r.NormFloat64()
		p := 1 / (1 + math.Exp(-x*2))
		y := 0.0
		if r.Float64() < 1/(1+math.Exp(-strength*x*2)) {
			y = 1
		}
		scores, labels = append(scores, p), append(labels, y)
		o.Add(p, y == 1)
	}
	return scores, labels, o
}

func TestLossOfPerformanceAsksForANewModel(t *testing.T) {
	s := newStream(5, 3)
	b := s.baseline(20, 500)
	scores, labels, _ := labelled(s.random, 5000, 1)
	chunk := make([]int, len(scores))
	for i := range chunk {
		chunk[i] = i / 500
	}
	b.HoldOut(scores, labels, chunk)
	j := NewJudge("m", "d", b, DefaultPolicy(), 0)
	for i, step := range []struct {
		strength float64
		kinds    []string
	}{
		{1, []string{schemas.DriftPerformance}},
		{0.3, []string{schemas.DriftSuspected, schemas.DriftPerformance}},
		{0.3, []string{schemas.DriftConfirmed, schemas.DriftPerformance}},
	} {
		_, _, o := labelled(s.random, 500, step.strength)
		v := j.Perform(LabelledWindow{Start: int64(i) * day, End: int64(i+1) * day, Rows: 1000, Outcomes: o})
		if got := kinds(v.Events); !slices.Equal(got, step.kinds) {
			t.Errorf("window %d: %v, want %v (%s)", i, got, step.kinds, v.Full.Reason)
		}
		if v.Full.AUC == nil || v.Full.CalibrationError == nil || v.Full.LabelCoverage != 0.5 || *v.Full.BaselineAUC != b.Performance.AUC {
			t.Errorf("window %d: %+v", i, v.Full)
		}
		if (v.Retrain != nil) != (i == 2) {
			t.Errorf("window %d: retrain %v", i, v.Retrain)
		}
	}
	v := j.Perform(LabelledWindow{Start: 9 * day, End: 10 * day, Rows: 1000, Outcomes: &profile.Outcomes{}})
	if v.Full.State != StateInsufficient || v.Full.AUC != nil {
		t.Errorf("without labels: %+v", v.Full)
	}
}

// TestARestoredJudgeGoesOnLikeTheOneBefore cuts a run at every window and compares what follows.
func TestARestoredJudgeGoesOnLikeTheOneBefore(t *testing.T) {
	const windows = 12
	run := func(cut int) (events []schemas.Drift, requests []schemas.Retrain) {
		s := newStream(6, 4)
		b := s.baseline(20, 300)
		scores, labels, _ := labelled(s.random, 3000, 1)
		b.HoldOut(scores, labels, nil)
		j := NewJudge("m", "d", b, DefaultPolicy(), 0)
		for i := range windows {
			if i == cut {
				j = NewJudge("m", "d", b, DefaultPolicy(), 0)
				j.Restore(events, requests)
			}
			w := s.window(b, i, 300, func(row []float64) {
				if i >= 3 && i < 7 {
					row[1] += 1
				}
				if i >= 2 && i < 5 && s.random.Float64() < 0.5 {
					row[3] = math.NaN()
				}
			})
			_, _, o := labelled(s.random, 300, 1-float64(i)/6)
			for _, v := range []Verdict{j.Close(w), j.Perform(LabelledWindow{Start: w.Start, End: w.End, Rows: 300, Outcomes: o})} {
				events = append(events, v.Events...)
				if v.Retrain != nil {
					requests = append(requests, *v.Retrain)
				}
			}
		}
		return events, requests
	}
	want, wantRequests := run(-1)
	if len(wantRequests) < 2 {
		t.Fatalf("only %d requests", len(wantRequests))
	}
	for cut := 1; cut < windows; cut++ {
		got, requests := run(cut)
		if fmt.Sprint(kinds(got)) != fmt.Sprint(kinds(want)) || fmt.Sprint(requests) != fmt.Sprint(wantRequests) {
			t.Errorf("cut before window %d:\n%v\n%v\nwant\n%v\n%v", cut, kinds(got), requests, kinds(want), wantRequests)
		}
	}
}
