package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/registry/model/onnx"
	"github.com/millrace/millrace/training/gbdt"
)

// The test binary is the program that trains, when this variable says how it shall behave.
const behaviour = "TRAINER_TEST_BEHAVIOUR"

const secret = "TRAINER_TEST_SECRET"

func TestMain(m *testing.M) {
	if how := os.Getenv(behaviour); how != "" {
		if err := behave(how, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

// behave is the program.
func behave(how, path string) error {
	dir := filepath.Dir(path)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var job Job
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	out := func(name string, b []byte) error { return os.WriteFile(filepath.Join(dir, job.Out, name), b, 0o644) }
	switch how {
	case "fails":
		fmt.Println("about to fail")
		return errors.New("the label column is odd")
	case "chatters":
		fmt.Println(strings.Repeat("too much ", 100_000))
		return errors.New("the end")
	case "leaves nothing":
		return nil
	case "leaves rubbish":
		return out("model.txt", []byte("tree\nversion=v9\n"))
	case "leaves an unknown format":
		return out("model.pkl", []byte("\x80\x04pickled"))
	case "leaves ONNX":
		var file string
		if err := json.Unmarshal(job.Params, &file); err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return out("model.onnx", b)
	case "tells its environment":
		return fmt.Errorf("secret %q, path %v", os.Getenv(secret), os.Getenv("PATH") != "")
	case "hangs":
		return hang(job)
	}
	forest, valid, err := trainOn(dir, job, how)
	if err != nil {
		return err
	}
	if err := out("model.txt", forest.LightGBM()); err != nil || how != "tells its scores" && how != "tells other scores" {
		return err
	}
	var scores []float64
	for r := range valid.Times {
		row := make([]float64, len(valid.Columns))
		for c := range row {
			row[c] = valid.Columns[c][r]
		}
		scores = append(scores, forest.Predict(row))
	}
	if how == "tells other scores" {
		scores[7] += 0.01
	}
	if text, err = json.Marshal(scores); err != nil {
		return err
	}
	return out(ScoresFile, text)
}

// hang starts another that hangs, too; both hold a listener whose address they add to a file.
func hang(job Job) error {
	var params struct {
		Addresses string
		Child     bool
	}
	if err := json.Unmarshal(job.Params, &params); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	file, err := os.OpenFile(params.Addresses, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fmt.Fprintln(file, l.Addr())
	if !params.Child {
		params.Child = true
		job.Params, _ = json.Marshal(params)
		text, _ := json.Marshal(job)
		path := params.Addresses + ".job"
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return err
		}
		if err := exec.Command(os.Args[0], path).Start(); err != nil {
			return err
		}
	}
	fmt.Println("hanging")
	for {
		if _, err := l.Accept(); err != nil {
			return err
		}
	}
}

func trainOn(dir string, job Job, how string) (*model.Forest, *offline.Dataset, error) {
	train, err := offline.ReadDataset(filepath.Join(dir, job.Train.Path))
	if err != nil {
		return nil, nil, err
	}
	valid, err := offline.ReadDataset(filepath.Join(dir, job.Valid.Path))
	if err != nil {
		return nil, nil, err
	}
	if len(train.Times) != job.Train.Rows || len(valid.Times) != job.Valid.Rows || train.Times[0] != job.Train.From || valid.Times[len(valid.Times)-1]+1 != job.Valid.Until {
		return nil, nil, fmt.Errorf("the parts are not as described: %+v, %+v", job.Train, job.Valid)
	}
	d := gbdt.Data{Columns: train.Columns, Labels: train.Labels}
	for i, in := range job.Inputs {
		name := in.Name
		if how == "numbers its columns" {
			name = fmt.Sprintf("Column_%d", i)
		}
		d.Names = append(d.Names, name)
	}
	switch how {
	case "swaps columns":
		d.Names[0], d.Names[1] = d.Names[1], d.Names[0]
	case "drops a column":
		d.Names, d.Columns = d.Names[1:], d.Columns[1:]
	}
	p := gbdt.Default()
	p.Trees, p.Leaves = 5, 7
	if how == "fits a regression" {
		p.Objective = model.Regression
	}
	f, err := gbdt.Fit(context.Background(), d, p)
	return f, valid, err
}

func someRows(n int, from int64) Rows {
	r := rand.New(rand.NewPCG(1, uint64(from)))
	rows := Rows{Columns: make([][]float64, 3)}
	for i := range n {
		x, gap, z := r.NormFloat64(), r.NormFloat64(), r.Float64()
		if i%5 == 0 {
			gap = math.NaN()
		}
		y := 0.0
		if x+z > 0.5 {
			y = 1
		}
		for c, v := range []float64{x, gap, z} {
			rows.Columns[c] = append(rows.Columns[c], v)
		}
		rows.Keys, rows.Times, rows.Labels = append(rows.Keys, fmt.Sprint("k", i)), append(rows.Times, from+int64(i)), append(rows.Labels, y)
	}
	return rows
}

func run(ctx context.Context, t *testing.T, how string, timeout time.Duration, params any) (Result, error) {
	t.Helper()
	text, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	p := Program{Command: []string{os.Args[0]}, Dir: t.TempDir(), Env: map[string]string{behaviour: how}, Timeout: timeout, KeepLog: 200}
	job := Job{Candidate: "mine", Objective: "binary", Inputs: []Input{{Name: "x"}, {Name: "gap"}, {Name: "z", Monotone: 1}}, Params: text}
	return Run(ctx, p, job, someRows(400, 1000), someRows(100, 2000))
}

func TestAProgramTrains(t *testing.T) {
	var first model.Model
	for _, how := range []string{"trains", "numbers its columns", "tells its scores"} {
		r, err := run(t.Context(), t, how, time.Minute, nil)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		b, err := model.PackBundle([]model.SignatureInput{{Name: "x"}, {Name: "gap"}, {Name: "z"}}, r.MediaType, r.Bytes, nil, [][]float64{{1, 2, 3}})
		if err != nil {
			t.Fatalf("%s: packing what it left: %v", how, err)
		}
		m, err := b.Check()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(m.Inputs(), []string{"x", "gap", "z"}) || !slices.Equal(r.Model.Inputs(), m.Inputs()) {
			t.Errorf("%s: inputs %q, packed %q", how, r.Model.Inputs(), m.Inputs())
		}
		if first == nil {
			first = m
		}
		for _, row := range [][]float64{{1, math.NaN(), 0.3}, {-1, 0.5, 0.9}} {
			if got, want := m.Predict(row), first.Predict(row); got != want || got < 0 || got > 1 {
				t.Errorf("%s: %v scores %v, %v when it told nothing else", how, row, got, want)
			}
		}
	}
}

// An ONNX model is taken by a build that scores it; any other says which would.
func TestAProgramLeavesONNX(t *testing.T) {
	file, err := filepath.Abs(filepath.Join("..", "..", "registry", "model", "testdata", "onnx", "made-three.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := run(t.Context(), t, "leaves ONNX", time.Minute, file)
	switch {
	case !onnx.Built:
		if failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "out/model.onnx") || !strings.Contains(err.Error(), onnx.LibraryVariable) {
			t.Errorf("error %v", err)
		}
	case err != nil:
		t.Fatal(err)
	case r.MediaType != model.MediaONNX || !slices.Equal(r.Model.Inputs(), []string{"x", "gap", "z"}):
		t.Errorf("%s with inputs %q", r.MediaType, r.Model.Inputs())
	}
}

func TestWhatAProgramDoesWrongIsRefused(t *testing.T) {
	for how, want := range map[string][]string{
		"fails":                    {"exit status 3", "about to fail\nthe label column is odd"},
		"chatters":                 {"exit status 3", "it printed last: …", "the end"},
		"leaves nothing":           {"the program left 0 such files", "out/model.txt"},
		"leaves rubbish":           {"out/model.txt", "v9"},
		"leaves an unknown format": {"out/model.pkl", "a Python pickle"},
		"swaps columns":            {`input 0 of the model is "gap", that of the job "x"`},
		"drops a column":           {"the model has 2 inputs, the job 3"},
		"fits a regression":        {"it is a model for regression, the job asks for one for binary"},
		"tells other scores":       {"out/valid_scores.json: row 7 scores"},
	} {
		t.Run(how, func(t *testing.T) {
			r, err := run(t.Context(), t, how, time.Minute, nil)
			if failure.Of(err) != failure.Refused {
				t.Fatalf("error %v, want one of kind refused", err)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			if len(err.Error()) > 600 || len(r.Log) > 210 {
				t.Errorf("%d bytes of log in an error of %d", len(r.Log), len(err.Error()))
			}
		})
	}
}

// The train role's own variables, which may be passwords, are not the program's.
func TestAProgramGetsLittleEnvironment(t *testing.T) {
	t.Setenv(secret, "password")
	_, err := run(t.Context(), t, "tells its environment", time.Minute, nil)
	if err == nil || !strings.Contains(err.Error(), `secret "", path true`) {
		t.Errorf("error %v", err)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	p := Program{Command: []string{"no-such-trainer-anywhere"}, Dir: t.TempDir(), Timeout: time.Minute, KeepLog: 100}
	_, err := Run(t.Context(), p, Job{Objective: "binary", Inputs: []Input{{Name: "x"}, {Name: "gap"}, {Name: "z"}}}, someRows(4, 0), someRows(4, 4))
	if failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "install it where the train role runs") {
		t.Errorf("error %v", err)
	}
}

// TestNothingOutlivesItsTime has a program and its child hang: neither the timeout nor the end of the context leaves one
// of them alive.
func TestNothingOutlivesItsTime(t *testing.T) {
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprint("context ended ", ended), func(t *testing.T) {
			addresses := filepath.Join(t.TempDir(), "addresses")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			timeout := 3 * time.Second
			if ended {
				timeout = time.Hour
				go func() {
					lines(t, addresses, 2)
					cancel()
				}()
			}
			_, err := run(ctx, t, "hangs", timeout, map[string]any{"Addresses": addresses})
			if ended && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want that of the context", err)
			}
			if !ended && (failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "timeout of 3s") || !strings.Contains(err.Error(), "hanging")) {
				t.Errorf("error %v", err)
			}
			for _, address := range lines(t, addresses, 2) {
				poll(t, func() bool {
					c, err := net.Dial("tcp", address)
					if err == nil {
						_ = c.Close()
					}
					return err != nil
				})
			}
		})
	}
}

func lines(t *testing.T, path string, n int) (found []string) {
	poll(t, func() bool {
		b, _ := os.ReadFile(path)
		found = strings.Fields(string(b))
		return len(found) == n
	})
	return found
}

func poll(t *testing.T, done func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("it did not happen within 20 s")
			return
		}
	}
}

// TestTheJobIsWhole looks at the folder as a program sees it.
func TestTheJobIsWhole(t *testing.T) {
	dir := t.TempDir()
	job := Job{
		Project: "flights", Model: "late", Candidate: "mine", Objective: "binary", Metric: "auc", Seed: 7, Params: json.RawMessage(`{"depth":3}`),
		Inputs: []Input{{Name: "x", Kind: "float"}, {Name: "gap", Kind: "int", Categorical: true}, {Name: "z", Kind: "float", Monotone: -1}},
		Parent: &Parent{MediaType: model.MediaLightGBM, Digest: "sha256:abc", Bytes: []byte("tree")},
	}
	train := someRows(10, 100)
	if err := job.lay(dir, train, someRows(3, 200)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, JobFile))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/job.json")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(want) {
		t.Errorf("job.json is\n%s", text)
	}
	got, err := offline.ReadDataset(filepath.Join(dir, "train/rows.arrow"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Keys, train.Keys) || !slices.Equal(got.Labels, train.Labels) || !math.IsNaN(got.Columns[1][0]) || got.Columns[2][9] != train.Columns[2][9] {
		t.Errorf("rows %+v", got)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "parent/model.txt")); err != nil || string(b) != "tree" {
		t.Errorf("parent %q, %v", b, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "out")); err != nil || len(left) != 0 {
		t.Errorf("out has %v, %v", left, err)
	}
}

// TestWeightsAreAColumn: programs find what rows count for beside their inputs.
func TestWeightsAreAColumn(t *testing.T) {
	dir := t.TempDir()
	rows := Rows{Keys: []string{"a", "b"}, Times: []int64{1, 2}, Labels: []float64{0, 1}, Weights: []float64{0.5, 3}, Columns: [][]float64{{7, math.NaN()}}}
	job := Job{Inputs: []Input{{Name: "x"}}}
	if err := job.lay(dir, rows, rows); err != nil {
		t.Fatal(err)
	}
	valid, err := offline.ReadDataset(filepath.Join(dir, job.Valid.Path))
	if err != nil {
		t.Fatal(err)
	}
	if job.Weight != WeightColumn || !slices.Equal(valid.Names, []string{"x", "_weight"}) || !slices.Equal(valid.Columns[1], rows.Weights) || len(job.Inputs) != 1 {
		t.Errorf("job %+v, rows %+v", job, valid)
	}
}
