package training

import (
	"sort"
	"time"

	"github.com/millrace/millrace/internal/failure"
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
	if err := enough(cfg, "training rows", train); err != nil {
		return train, held, err
	}
	return train, held, enough(cfg, "held-out rows", held)
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

func enough(cfg Config, where string, p Part) error {
	positive := sum(p.Labels)
	switch n := len(p.Labels); {
	case n < cfg.MinRows:
		return failure.New(failure.Refused, where, "there are %d, fewer than MinRows = %d", n, cfg.MinRows).
			WithHint("wait for more data, or widen the model's window")
	case positive == 0 || positive == float64(n):
		return failure.New(failure.Refused, where, "all %d labels are %v", n, positive > 0)
	default:
		return nil
	}
}

// row copies one row of a part.
func (p Part) row(i int, into []float64) []float64 {
	for _, c := range p.Columns {
		into = append(into, c[i])
	}
	return into
}

func sum(xs []float64) float64 {
	total := 0.0
	for _, x := range xs {
		total += x
	}
	return total
}

// instant is an event time for people.
func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
