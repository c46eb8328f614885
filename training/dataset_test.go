package training

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// oracle computes inputs by brute force over the arrivals as they happened, apart from engine and replay.
func (w *world) oracle(f flight, input project.Input) float64 {
	switch input.Name {
	case "distance":
		if f.distance == 0 {
			return math.NaN()
		}
		return float64(f.distance)
	case "hour":
		return float64(time.UnixMilli(f.scheduled).UTC().Hour())
	}
	out := input.Group.Outputs[input.Output]
	entity := f.origin
	if input.Group.Entity[0] == "destination" {
		entity = f.destination
	}
	from := int64(math.MinInt64)
	if out.Window > 0 {
		tile := out.TailError.Milliseconds()
		from = (f.scheduled - out.Window.Milliseconds()) / tile * tile
	}
	var seen, known int
	sum, count, most, last, late := 0.0, 0.0, math.Inf(-1), math.NaN(), 0.0
	lastTo := ""
	for _, a := range w.arrivals { // in the order of (time, partition, offset)
		at := a.origin
		if at == "" {
			at = "???"
		}
		if input.Group.Entity[0] == "destination" {
			at = a.destination
		}
		if at != entity || entity == "" || a.time >= f.scheduled {
			continue
		}
		known++
		if a.time < from {
			continue
		}
		count++
		lastTo = a.destination
		if a.cancelled {
			continue
		}
		seen++
		sum += float64(a.delay)
		most = max(most, float64(a.delay))
		last = float64(a.delay)
		if a.late() {
			late++
		}
	}
	switch {
	case known == 0:
		return math.NaN()
	case out.Feature == "flights":
		return count
	case out.Feature == "last_to":
		return place(input.Categories.Names(), lastTo)
	case seen == 0:
		return math.NaN()
	}
	return map[string]float64{
		"delay_mean": sum / float64(seen), "delay_max": most, "last_delay": last, "late_rate": late / float64(seen),
	}[out.Feature]
}

// place is where a name is among names; NaN where it is not.
func place(names []string, name string) float64 {
	if i := slices.Index(names, name); i >= 0 {
		return float64(i)
	}
	return math.NaN()
}

func TestDatasetAgainstBruteForce(t *testing.T) {
	w := newWorld(t, 12, 480)
	d := w.build(t)
	if err := Verify(testConfig(), d); err != nil {
		t.Fatal(err)
	}
	byID := map[string]flight{}
	for _, f := range w.flights {
		byID[f.id] = f
	}
	rng := rand.New(rand.NewPCG(5, 6))
	rows := rng.Perm(len(d.Times))[:300]
	rows = append(rows, 0, 1, 2, 3, len(d.Times)-1)
	missing, values := 0, 0
	for _, r := range rows {
		f := byID[d.Keys[r]]
		if d.Times[r] != f.scheduled || d.Known[r] != f.arrived() || (d.Labels[r] == 1) != f.late() {
			t.Fatalf("row %d of flight %+v: time %d, label %v known at %d", r, f, d.Times[r], d.Labels[r], d.Known[r])
		}
		for i, in := range w.model.Inputs {
			want := w.oracle(f, in)
			if !same(d.Columns[i][r], want) {
				t.Errorf("%s of flight %+v is %v, want %v", in.Name, f, d.Columns[i][r], want)
			}
			values++
			if math.IsNaN(want) {
				missing++
			}
		}
	}
	if missing == 0 || missing > values/2 {
		t.Errorf("%d of %d values are missing: the test does not look at what it should", missing, values)
	}
}

func TestOneRowOutForEachLabelledRowIn(t *testing.T) {
	w := newWorld(t, 12, 480)
	d := w.build(t)
	var want []string
	within := w.model.Label.Within.Milliseconds()
	holdout := w.until() - within - w.model.Train.Holdout.Milliseconds()
	for _, f := range w.flights {
		mature := f.scheduled < holdout-within || f.scheduled >= holdout && f.scheduled < w.until()-within
		if mature && !f.lost && !f.cancelled && f.arrived() > f.scheduled && f.arrived() <= f.scheduled+within {
			want = append(want, f.id)
		}
	}
	got := slices.Sorted(slices.Values(d.Keys))
	if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("%d rows out, %d flights had a label in time", len(got), len(want))
	}
	for r := range d.Times {
		if d.Times[r] < d.TrainUntil && d.Known[r] >= d.HoldoutFrom || d.Known[r] >= w.until() {
			t.Fatalf("the label of row %d was known at %d", r, d.Known[r])
		}
	}
	if train, held, err := Split(testConfig(), d); err != nil || len(train.Times)+len(held.Times) != len(d.Times) ||
		train.Times[len(train.Times)-1] >= held.Times[0]-within {
		t.Errorf("split into %d and %d rows of %d, %v", len(train.Times), len(held.Times), len(d.Times), err)
	}
}

func TestTheWindowLimitsTheRowsAndNotWhatTheyKnow(t *testing.T) {
	w := newWorld(t, 12, 480)
	all := w.build(t)
	w.model.Train.Window = 3 * 24 * time.Hour
	part := w.build(t)
	if len(part.Times) >= len(all.Times) || part.Times[0] < part.From || part.TrainUntil-part.From != 3*day {
		t.Fatalf("%d rows of %d from %s", len(part.Times), len(all.Times), instant(part.Times[0]))
	}
	compareRows(t, all, part)
}

// compareRows requires every row of part to be in all with the same values.
func compareRows(t *testing.T, all, part *Dataset) {
	t.Helper()
	at := map[string]int{}
	for r, key := range all.Keys {
		at[key] = r
	}
	for r, key := range part.Keys {
		q, ok := at[key]
		if !ok {
			t.Fatalf("row %s is not in the whole", key)
		}
		for i := range part.Columns {
			if a, b := part.Columns[i][r], all.Columns[i][q]; a != b && !(math.IsNaN(a) && math.IsNaN(b)) {
				t.Fatalf("%s of row %s is %v, in the whole %v", part.Names[i], key, a, b)
			}
		}
	}
}

func TestASampleIsOfTheSizeAndTheSameEachTime(t *testing.T) {
	w := newWorld(t, 12, 480)
	all := w.build(t)
	w.model.Train.MaxRows = 1000
	part := w.build(t)
	if len(part.Times) != 1000 || part.Labelled != int64(len(all.Times)) {
		t.Fatalf("%d rows of %d", len(part.Times), part.Labelled)
	}
	if err := Verify(testConfig(), part); err != nil {
		t.Error(err)
	}
	compareRows(t, all, part)
	if again := w.build(t); !slices.Equal(again.Keys, part.Keys) {
		t.Error("another sample of the same data is another sample")
	}
	w.model.Train.Seed++
	if other := w.build(t); slices.Equal(other.Keys, part.Keys) {
		t.Error("another seed gives the same sample")
	}
	// A sample, not a stretch: both parts keep their share.
	share := func(d *Dataset) float64 {
		train, _, err := Split(testConfig(), d)
		if err != nil {
			t.Fatal(err)
		}
		return float64(len(train.Times)) / float64(len(d.Times))
	}
	if a, b := share(all), share(part); math.Abs(a-b) > 0.06 {
		t.Errorf("%.3f of all rows are trained on, and %.3f of the sample", a, b)
	}
}

// replayAhead fills the features as if every row had come so much later.
func (w *world) replayAhead(t *testing.T, d *Dataset, ahead int64) {
	t.Helper()
	b := &builder{cfg: testConfig(), dir: w.dir, model: w.model, span: d.Span, progress: func(string, int64, int64) {}}
	known, err := b.labels(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.spine(t.Context(), known)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.rows {
		r.time += ahead
	}
	if err := b.replay(t.Context(), d, s.rows); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyCatchesWhatIsPlanted(t *testing.T) {
	w := newWorld(t, 12, 480)
	input := func(d *Dataset, value func(row int) float64) {
		column := make([]float64, len(d.Times))
		for r := range column {
			column[r] = value(r)
		}
		d.Names, d.Columns = append(d.Names, "planted"), append(d.Columns, column)
	}
	for name, plant := range map[string]struct {
		change func(d *Dataset)
		want   string // in the message; empty when the dataset is in order
	}{
		"nothing":                            {func(*Dataset) {}, ""},
		"features read at the row's time":    {func(d *Dataset) { w.replayAhead(t, d, 0) }, ""},
		"features read an hour later":        {func(d *Dataset) { w.replayAhead(t, d, hour) }, "_delays: row"},
		"features read a millisecond later":  {func(d *Dataset) { w.replayAhead(t, d, 1) }, "_delays: row"},
		"the label as input":                 {func(d *Dataset) { input(d, func(r int) float64 { return d.Labels[r] }) }, "planted: the input gives the label away"},
		"the label upside down":              {func(d *Dataset) { input(d, func(r int) float64 { return -3 * d.Labels[r] }) }, "planted"},
		"an input missing when there is one": {func(d *Dataset) { input(d, func(r int) float64 { return 1 / (1 - d.Labels[r]) * 0 }) }, "planted"},
		"an honest input":                    {func(d *Dataset) { input(d, func(r int) float64 { return float64(r % 7) }) }, ""},
		"a label known before the row":       {func(d *Dataset) { d.Known[10] = d.Times[10] }, "the label was known 0 ms before"},
		"a label after the cutoff":           {func(d *Dataset) { d.Known[len(d.Known)-1] = d.Until }, "after the cutoff"},
		"a training label from the holdout":  {func(d *Dataset) { d.Known[3] = d.HoldoutFrom }, "into the held-out rows"},
		"a row between training and holdout": {func(d *Dataset) {
			for r, at := range d.Times {
				if at >= d.HoldoutFrom {
					d.Times[r] = d.HoldoutFrom - 1
					return
				}
			}
		}, "neither one to train on nor held out"},
		"rows out of order": {func(d *Dataset) { d.Times[5] = d.Times[6] + 1 }, "out of order"},
		"a lost row":        {func(d *Dataset) { d.Labelled++ }, "labelled rows in"},
		"a short column":    {func(d *Dataset) { d.Columns[0] = d.Columns[0][1:] }, "values for"},
	} {
		t.Run(name, func(t *testing.T) {
			d := w.build(t)
			plant.change(d)
			err := Verify(testConfig(), d)
			switch {
			case plant.want == "" && err != nil:
				t.Error(err)
			case plant.want != "" && (err == nil || failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), plant.want)):
				t.Errorf("error is %v, want one of kind refused with %q", err, plant.want)
			}
		})
	}
}

func TestARowHasTheFirstLabelAfterIt(t *testing.T) {
	l := &labels{first: map[string]int32{}}
	for _, x := range []label{
		{position: position{50, 1, 9}, value: 5}, {position: position{10, 0, 1}, value: 1}, {position: position{50, 0, 3}, value: 4},
		{position: position{30, 0, 2}, value: 3},
	} {
		l.add("k", x)
	}
	for _, c := range []struct {
		row, within int64
		want        float64 // 0: none
	}{{5, 100, 1}, {10, 100, 3}, {10, 20, 3}, {10, 19, 0}, {30, 100, 4}, {50, 100, 0}} {
		got, ok := l.after("k", c.row, c.within)
		if got.value != c.want || ok != (c.want != 0) {
			t.Errorf("after %d within %d: %v, %v; want %v", c.row, c.within, got.value, ok, c.want)
		}
	}
	if _, ok := l.after("other", 0, 100); ok {
		t.Error("a key without labels has one")
	}
}

func TestNoInputIsTooMany(t *testing.T) {
	w := newWorld(t, 9, 96)
	cfg := testConfig()
	cfg.MaxInputs = 3
	_, err := Build(t.Context(), cfg, w.dir, w.model, w.until(), func(string, int64, int64) {})
	if failure.Of(err) != failure.Refused {
		t.Errorf("error is %v", err)
	}
	cfg = testConfig()
	cfg.MaxLabels = 10
	_, err = Build(t.Context(), cfg, w.dir, w.model, w.until(), func(string, int64, int64) {})
	if failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "MaxLabels") {
		t.Errorf("error is %v", err)
	}
}
