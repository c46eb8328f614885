package training

import (
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Verify refuses a dataset with a row that knows the future, or that is not what was asked for:
//
//   - a value from a feature group must know only events before its row's time;
//   - a label must come after its row's time, and before the cutoff;
//   - a row must be one to train on, its label known before the held-out rows begin, or one held out;
//   - no labelled row may be missing or there twice, but for a sample of the stated size;
//   - no input may give the label away: rank it by itself with an area under the curve of LeakAUC or more, either way.
//
// The last is a judgement about data, the others are facts about each row. Failures are of kind Refused.
func Verify(cfg Config, d *Dataset) error {
	for _, check := range []func(Config, *Dataset) error{verifyCount, verifyRows, verifyLookups, verifyInputs} {
		if err := check(cfg, d); err != nil {
			return fmt.Errorf("verifying dataset: %w", err)
		}
	}
	return nil
}

func verifyCount(_ Config, d *Dataset) error {
	n := len(d.Times)
	if want := min(int64(d.Limit), d.Labelled); int64(n) != want {
		return failure.New(failure.Refused, "rows", "%d labelled rows in, %d out, %d were to be kept", d.Labelled, n, want)
	}
	for i, c := range d.Columns {
		if len(c) != n {
			return failure.New(failure.Refused, d.Names[i], "there are %d values for %d rows", len(c), n)
		}
	}
	return nil
}

func verifyRows(_ Config, d *Dataset) error {
	for r, at := range d.Times {
		known := d.Known[r]
		switch {
		case r > 0 && d.Times[r-1] > at:
			return leak(d, r, "label", "the row is out of order")
		case known <= at:
			return leak(d, r, "label", "the label was known %d ms before the row asked", at-known)
		case known >= d.Until:
			return leak(d, r, "label", "the label came %d ms after the cutoff", known-d.Until)
		case !d.uses(at):
			return leak(d, r, "label", "the row is neither one to train on nor held out")
		case at < d.TrainUntil && known >= d.HoldoutFrom:
			return leak(d, r, "label", "the label of a training row came %d ms into the held-out rows", known-d.HoldoutFrom)
		}
	}
	return nil
}

func verifyLookups(_ Config, d *Dataset) error {
	for _, l := range d.Lookups {
		for r, newest := range l.Newest {
			if newest != pit.Never && newest >= d.Times[r] {
				return leak(d, r, l.Group, "the values know an event %d ms after the row's time", newest-d.Times[r])
			}
		}
	}
	return nil
}

func verifyInputs(cfg Config, d *Dataset) error {
	stride := max(1, len(d.Times)/cfg.LeakRows)
	scores, labels := make([]float64, 0, cfg.LeakRows), make([]float64, 0, cfg.LeakRows)
	for i, column := range d.Columns {
		for _, holds := range questions(d) {
			scores, labels = scores[:0], labels[:0]
			for r := 0; r < len(column); r += stride {
				v, label := column[r], 0.0
				if math.IsNaN(v) {
					v = math.Inf(-1) // being missing can give a label away, too
				}
				if holds(d.Labels[r]) {
					label = 1
				}
				scores, labels = append(scores, v), append(labels, label)
			}
			auc, ok := profile.AUC(scores, labels)
			if ok && max(auc, 1-auc) >= cfg.LeakAUC {
				return failure.New(failure.Refused, d.Names[i], "the input gives the label away: by itself it reaches an area under the curve of %.4f", max(auc, 1-auc)).
					WithHint("is it known before the label is? if it is, raise LeakAUC")
			}
		}
	}
	return nil
}

// questions are what an input must not answer by itself: whether the label holds, of classes whether it is each of them, of numbers whether it is
// above the median.
func questions(d *Dataset) []func(label float64) bool {
	switch {
	case d.Classes != nil:
		each := make([]func(float64) bool, len(d.Classes))
		for k := range each {
			each[k] = func(y float64) bool { return y == float64(k) }
		}
		return each
	case d.Task == model.TaskRegression || d.Task == model.TaskPoisson:
		sorted := slices.Sorted(slices.Values(d.Labels))
		return []func(float64) bool{func(y float64) bool { return y > sorted[len(sorted)/2] }}
	default:
		return []func(float64) bool{func(y float64) bool { return y == 1 }}
	}
}

func leak(d *Dataset, row int, where, format string, args ...any) error {
	return failure.New(failure.Refused, where, "row %d (%s at %s): %s", row, d.Keys[row], instant(d.Times[row]), fmt.Sprintf(format, args...))
}
