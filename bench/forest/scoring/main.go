// Command scoring scores rows with a model file, one at a time and all at once, and prints what it costs. It is run by
// scoring.py.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/millrace/millrace/registry/model"
)

func main() {
	file := flag.String("model", "", "model file, of XGBoost's or LightGBM's")
	rows := flag.String("rows", "", "rows: float64, little endian, row after row")
	scores := flag.String("scores", "", "file to write the scores to, likewise")
	runs := flag.Int("runs", 20, "times to score all rows")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	if err := run(*file, *rows, *scores, *runs); err != nil {
		fmt.Fprintln(os.Stderr, "scoring:", err)
		os.Exit(1)
	}
}

func run(file, rowsFile, scoresFile string, runs int) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	media, err := model.Detect(b)
	if err != nil {
		return err
	}
	m, err := model.Load(media, b)
	if err != nil {
		return err
	}
	rows, err := read(rowsFile, len(m.Inputs()))
	if err != nil {
		return err
	}
	out := make([]float64, len(rows)*len(m.Outputs()))
	result := map[string]float64{
		"one": least(runs, len(rows), func() {
			for _, row := range rows {
				m.Predict(row)
			}
		}),
		"batch": least(runs, len(rows), func() { m.PredictRows(rows, out) }),
	}
	few, reasons := rows[:min(len(rows), 2000)], make([]float64, len(m.Inputs()))
	for _, method := range m.Methods() {
		if method == model.TreeSHAP {
			few = few[:min(len(few), 100)]
		}
		result[method] = least(3, len(few), func() {
			for _, row := range few {
				m.Explain(row, 0, method, reasons)
			}
		})
	}
	result["allocations"] = allocations(rows, m)
	f, err := os.Create(scoresFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, out); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// least is the CPU time of a row, in microseconds, of the run that took the least: others on the machine only add to it.
func least(runs, rows int, work func()) float64 {
	best := time.Duration(1<<63 - 1)
	for range runs {
		began := cpu()
		work()
		best = min(best, cpu()-began)
	}
	return float64(best.Nanoseconds()) / 1e3 / float64(rows)
}

// allocations is how many a row takes, by itself.
func allocations(rows [][]float64, m model.Model) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, row := range rows {
		m.Predict(row)
	}
	runtime.ReadMemStats(&after)
	return float64((after.Mallocs - before.Mallocs) / uint64(len(rows)))
}

func read(path string, wide int) ([][]float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := make([]float64, len(b)/8)
	if _, err := binary.Decode(b, binary.LittleEndian, all); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	rows := make([][]float64, len(all)/wide)
	for i := range rows {
		rows[i] = all[i*wide : (i+1)*wide]
	}
	return rows, nil
}

// cpu is what this process has used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // RUSAGE_SELF is always there
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
