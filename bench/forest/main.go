// Command forest trains the built-in gradient boosted forest on rows that compare.py or suite.py wrote, and leaves the
// model and its scores there for them to judge. It is run by them.
package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training/gbdt"
)

// meta describes the row files: float64, little endian, column after column, then the label, then the weight where there is one.
type meta struct {
	Objective   model.Objective // binary when absent
	Classes     []string        // of a multiclass objective
	Weighted    bool
	Names       []string
	Categorical []bool // by column; absent is none
	Train, Test int    // rows
}

func main() {
	dir := flag.String("dir", "", "folder with meta.json, train.f64 and test.f64")
	trees := flag.Int("trees", 200, "trees")
	leaves := flag.Int("leaves", 31, "leaves per tree")
	flag.Parse()
	if err := run(*dir, *trees, *leaves); err != nil {
		fmt.Fprintln(os.Stderr, "forest:", err)
		os.Exit(1)
	}
}

func run(dir string, trees, leaves int) error {
	var m meta
	text, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("reading meta.json: %w", err)
	}
	columns, labels, weights, err := read(filepath.Join(dir, "train.f64"), m, m.Train)
	if err != nil {
		return err
	}
	params := gbdt.Default()
	params.Trees, params.Leaves = trees, leaves
	params.Objective = cmp.Or(m.Objective, params.Objective)
	began, cpu := time.Now(), cpuSeconds()
	forest, err := gbdt.Fit(context.Background(), gbdt.Data{
		Names: m.Names, Columns: columns, Labels: labels, Weights: weights, Classes: m.Classes, Categorical: m.Categorical,
	}, params)
	if err != nil {
		return err
	}
	out := map[string]any{"train_cpu_seconds": cpuSeconds() - cpu, "train_seconds": time.Since(began).Seconds(), "workers": runtime.GOMAXPROCS(0)}
	if err := os.WriteFile(filepath.Join(dir, "ours.txt"), forest.LightGBM(), 0o644); err != nil {
		return err
	}
	if err := score(dir, m, forest, out); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// score writes the first margin of every test row, then the scores of all outputs, one row at a time as serving does.
func score(dir string, m meta, forest *model.Forest, out map[string]any) error {
	columns, _, _, err := read(filepath.Join(dir, "test.f64"), m, m.Test)
	if err != nil {
		return err
	}
	rows := make([][]float64, m.Test)
	for i := range rows {
		rows[i] = make([]float64, len(columns))
		for j, c := range columns {
			rows[i][j] = c[i]
		}
	}
	scores := make([]float64, 0, 2*m.Test)
	began := cpuSeconds()
	for _, row := range rows {
		scores = append(scores, forest.Margin(row))
	}
	out["score_microseconds_per_row"] = (cpuSeconds() - began) * 1e6 / float64(m.Test)
	outputs := make([]float64, len(forest.Outputs()))
	for _, row := range rows {
		forest.PredictInto(row, outputs)
		scores = append(scores, outputs...)
	}
	reasons, worst := make([]float64, len(columns)), 0.0
	began = cpuSeconds()
	for i, row := range rows {
		sum, _ := forest.Explain(row, 0, "", reasons)
		for _, r := range reasons {
			sum += r
		}
		worst = max(worst, math.Abs(sum-scores[i]))
	}
	out["explain_microseconds_per_row"] = (cpuSeconds() - began) * 1e6 / float64(m.Test)
	out["explain_max_difference_from_margin"] = worst
	file, err := os.Create(filepath.Join(dir, "ours.f64"))
	if err != nil {
		return err
	}
	defer file.Close()
	return binary.Write(file, binary.LittleEndian, scores)
}

// read returns the columns of a row file, its labels, and its weights where there are any.
func read(path string, m meta, rows int) (columns [][]float64, labels, weights []float64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, nil, err
	}
	defer file.Close()
	names := len(m.Names)
	wide := names + 1
	if m.Weighted {
		wide++
	}
	all := make([]float64, wide*rows)
	if err := binary.Read(file, binary.LittleEndian, all); err != nil {
		return nil, nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	for i := range names {
		columns = append(columns, all[i*rows:(i+1)*rows])
	}
	if m.Weighted {
		weights = all[(names+1)*rows:]
	}
	return columns, all[names*rows : (names+1)*rows], weights, nil
}

// cpuSeconds is what this process has used so far, on all cores.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // RUSAGE_SELF is always there
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}
