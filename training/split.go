package training

import (
	"slices"
	"sort"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Part is some consecutive rows of a dataset; it shares the dataset's memory.
type Part struct {
	Columns [][]float64
	Keys    []string
	Times   []int64
	Labels  []float64
	Weights []float64 // above 0; nil is 1 for all
}

// Split gives the rows to train on and the later ones to judge by. Between them lies the time in which the labels of
// the first may come. Refused when either part has fewer than cfg.MinRows rows or only one class.
func Split(cfg Config, d *Dataset) (train, held Part, err error) {
	n := len(d.Times)
	end := sort.Search(n, func(i int) bool { return d.Times[i] >= d.TrainUntil })
	start := sort.Search(n, func(i int) bool { return d.Times[i] >= d.HoldoutFrom })
	train, held = d.part(0, end), d.part(start, n)
	if err := enough(cfg, d, "training rows", train); err != nil {
		return train, held, err
	}
	if class := absent(d, train); class != "" {
		return train, held, failure.New(failure.Refused, "training rows", "none has the class %q", class).
			WithHint("wait for more data, widen the model's window, or take the class away")
	}
	return train, held, enough(cfg, d, "held-out rows", held)
}

func (d *Dataset) part(from, until int) Part {
	return Part{d.Columns, d.Keys, d.Times, d.Labels, d.Weights}.between(from, until)
}

// between is the rows [from, until) of a part.
func (p Part) between(from, until int) Part {
	columns := make([][]float64, len(p.Columns))
	for i, c := range p.Columns {
		columns[i] = c[from:until]
	}
	weights := p.Weights
	if weights != nil {
		weights = weights[from:until]
	}
	return Part{columns, p.Keys[from:until], p.Times[from:until], p.Labels[from:until], weights}
}

func enough(cfg Config, d *Dataset, where string, p Part) error {
	switch n := len(p.Labels); {
	case n < cfg.MinRows:
		return failure.New(failure.Refused, where, "there are %d, fewer than MinRows = %d", n, cfg.MinRows).
			WithHint("wait for more data, or widen the model's window")
	case !slices.ContainsFunc(p.Labels, func(y float64) bool { return y != p.Labels[0] }):
		return failure.New(failure.Refused, where, "all %d labels are %s", n, d.labelText(p.Labels[0]))
	default:
		return nil
	}
}

// labelText is a label as the project has it.
func (d *Dataset) labelText(y float64) string {
	switch {
	case d.Classes != nil:
		return strconv.Quote(d.Classes[int(y)])
	case d.Task == model.TaskBinary:
		return strconv.FormatBool(y == 1)
	default:
		return strconv.FormatFloat(y, 'g', -1, 64)
	}
}

// absent is a class that no row has; empty when there is none.
func absent(d *Dataset, p Part) string {
	for k, name := range d.Classes {
		if !slices.Contains(p.Labels, float64(k)) {
			return name
		}
	}
	return ""
}

// row copies one row of a part.
func (p Part) row(i int, into []float64) []float64 {
	for _, c := range p.Columns {
		into = append(into, c[i])
	}
	return into
}

// instant is an event time for people.
func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
