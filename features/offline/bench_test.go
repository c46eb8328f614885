package offline

import (
	"context"
	"fmt"
	"testing"

	"github.com/millrace/millrace/schemas"
)

// sixColumns is the shape of an arrival.
var sixColumns = []Column{{"flight_id", schemas.String}, {"arrived", schemas.Time}, {"origin", schemas.String},
	{"destination", schemas.String}, {"delay", schemas.Int}, {"distance", schemas.Float}}

// arrivals are rows of five airports' flights, ten seconds apart.
func arrivals(n int) []schemas.Row {
	airports := []string{"ATL", "LAX", "ORD", "DFW", "PHX"}
	rows := make([]schemas.Row, n)
	for i := range rows {
		at := monday + int64(i)*10_000
		rows[i] = schemas.Row{schemas.StringValue(fmt.Sprintf("20010122-%07d", i)), schemas.TimeValue(at),
			schemas.StringValue(airports[i%5]), schemas.StringValue(airports[i*7%3]), schemas.IntValue(int64(i * 7919 % 90)),
			schemas.FloatValue(float64(i * 31 % 2500))}
	}
	return rows
}

func fill(b *testing.B, dir string, rows []schemas.Row, partitions, perCommit int) *Table {
	b.Helper()
	table, err := OpenTable(dir, sixColumns)
	if err != nil {
		b.Fatal(err)
	}
	for p := range partitions {
		w, err := table.NewWriter(int32(p), WriterOptions{})
		if err != nil {
			b.Fatal(err)
		}
		for i := p; i < len(rows); i += partitions {
			if err := w.Append(rows[i], rows[i][1].Int(), int64(i)); err != nil {
				b.Fatal(err)
			}
			if w.Rows() == perCommit {
				if err := w.Commit(int64(i) + 1); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := w.Commit(int64(len(rows))); err != nil {
			b.Fatal(err)
		}
	}
	return table
}

func perSecond(b *testing.B, rows int) {
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkWrite is appending and committing, fsync included, in commits of 50,000 rows over six days each.
func BenchmarkWrite(b *testing.B) {
	rows := arrivals(200_000)
	for b.Loop() {
		fill(b, b.TempDir(), rows, 1, 50_000)
	}
	perSecond(b, len(rows))
}

// BenchmarkSorted merges eight partitions, each of them in commits of 2,000 rows.
func BenchmarkSorted(b *testing.B) {
	rows := arrivals(400_000)
	table := fill(b, b.TempDir(), rows, 8, 2_000)
	for b.Loop() {
		it, err := table.Sorted(context.Background(), ScanOptions{})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for it.Next() {
			n += len(it.Row())
		}
		if it.Err() != nil || n != 6*len(rows) {
			b.Fatal(n, it.Err())
		}
	}
	perSecond(b, len(rows))
}

func BenchmarkScan(b *testing.B) {
	rows := arrivals(400_000)
	table := fill(b, b.TempDir(), rows, 8, 2_000)
	var row schemas.Row
	for b.Loop() {
		n := 0
		err := table.Scan(context.Background(), ScanOptions{}, func(batch *Batch) error {
			for i := range batch.Len() {
				row = batch.Row(i, row)
				n += len(row)
			}
			return nil
		})
		if err != nil || n != 6*len(rows) {
			b.Fatal(n, err)
		}
	}
	perSecond(b, len(rows))
}

func BenchmarkReadParquet(b *testing.B) {
	n := 0
	for b.Loop() {
		n = 0
		err := ReadParquet(context.Background(), sample, nil, func(batch *Batch) error {
			for i := range batch.Len() {
				n += len(batch.Row(i, nil)) / 5
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, n)
}
