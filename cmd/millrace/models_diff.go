package main

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// modelsDiff compares two versions.
type modelsDiff struct {
	stored `embed:""`
	A      string `arg:"" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`
	B      string `arg:"" help:"The other."`
	JSON   bool   `name:"json" help:"Print JSON lines."`
}

// difference is one thing that two versions have differently; empty is not having it.
type difference struct {
	What string `json:"what"` // input, metric, gate, parameter, or a fact of the version
	Name string `json:"name,omitempty"`
	A    string `json:"a"`
	B    string `json:"b"`
}

func (c *modelsDiff) Run(env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	a, err := describeVersion(r, c.A)
	if err != nil {
		return err
	}
	b, err := describeVersion(r, c.B)
	if err != nil {
		return err
	}
	found := differences(a, b)
	if c.JSON {
		enc := json.NewEncoder(env.out)
		for _, d := range found {
			if err := enc.Encode(d); err != nil {
				return err
			}
		}
		return nil
	}
	if len(found) == 0 {
		fmt.Fprintf(env.out, "%s and %s do not differ\n", a.Version, b.Version)
		return nil
	}
	w := tabwriter.NewWriter(env.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "WHAT\tNAME\t%s\t%s\t\n", a.Version, b.Version)
	for _, d := range found {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", d.What, d.Name, cmp.Or(d.A, "-"), cmp.Or(d.B, "-"), change(d))
	}
	return w.Flush()
}

// change is by how much a number differs.
func change(d difference) string {
	a, errA := strconv.ParseFloat(d.A, 64)
	b, errB := strconv.ParseFloat(d.B, 64)
	if errA != nil || errB != nil {
		return ""
	}
	return fmt.Sprintf("%+.6g", b-a)
}

// differences lists facts first, then what has names, in their order.
func differences(a, b *versionView) []difference {
	var found []difference
	add := func(what, name, x, y string) {
		if x != y {
			found = append(found, difference{what, name, x, y})
		}
	}
	add("digest", "", a.Digest, b.Digest)
	add("model file", "", a.Format, b.Format)
	add("training rows", "", strconv.FormatInt(a.Rows, 10), strconv.FormatInt(b.Rows, 10))
	add("code", "", a.Code, b.Code)
	both := func(what string, x, y map[string]string) {
		names := slices.AppendSeq(slices.Collect(maps.Keys(x)), maps.Keys(y))
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			add(what, name, x[name], y[name])
		}
	}
	both("input", inputTexts(a.Inputs), inputTexts(b.Inputs))
	both("metric", numberTexts(a.Metrics), numberTexts(b.Metrics))
	both("gate", gateTexts(a), gateTexts(b))
	both("parameter", a.Parameters, b.Parameters)
	return found
}

func inputTexts(inputs []model.SignatureInput) map[string]string {
	texts := map[string]string{}
	for _, in := range inputs {
		text := cmp.Or(in.Source, "unknown")
		if in.Required {
			text += " (required)"
		}
		if in.Categories != nil {
			text += " in " + project.NewCategories(in.Categories).Meaning()
		}
		texts[in.Name] = text
	}
	return texts
}

func numberTexts(numbers map[string]float64) map[string]string {
	texts := map[string]string{}
	for name, v := range numbers {
		texts[name] = strconv.FormatFloat(v, 'g', 6, 64)
	}
	return texts
}

func gateTexts(d *versionView) map[string]string {
	texts := map[string]string{}
	for _, g := range d.Gates {
		text := "not passed"
		if g.Passed {
			text = "passed"
		}
		texts[g.Gate] = text
	}
	return texts
}

// modelsExport writes the model file, as its own library wrote it or would read it.
type modelsExport struct {
	stored  `embed:""`
	Version string `arg:"" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`
	Out     string `required:"" help:"File to write." type:"path" placeholder:"FILE"`
	Golden  string `help:"Write the golden rows, too, as CSV: the inputs, then the score." type:"path" placeholder:"FILE"`
}

func (c *modelsExport) Run(env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	ref, err := r.Resolve(c.Version)
	if err != nil {
		return err
	}
	_, bundle, err := readBundle(r, ref.Digest)
	if err != nil {
		return err
	}
	if err := writeWhole(c.Out, func(w io.Writer) error { _, err := w.Write(bundle.Model); return err }); err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s: %s, %d bytes\n", c.Out, bundle.Format, len(bundle.Model))
	if c.Golden == "" {
		return nil
	}
	if err := writeWhole(c.Golden, func(w io.Writer) error { return writeGolden(w, bundle) }); err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s: %d golden rows\n", c.Golden, len(bundle.Golden))
	return nil
}

// scoreColumn is the column of scores beside the inputs of golden rows.
const scoreColumn = "score"

// writeGolden writes numbers so that reading them gives the same, categories by their names, and of several classes the highest score; a missing value
// is empty.
func writeGolden(out io.Writer, b model.Bundle) error {
	w := csv.NewWriter(out)
	fields := make([]string, 0, len(b.Signature)+1)
	for _, in := range b.Signature {
		fields = append(fields, in.Name)
	}
	if err := w.Write(append(fields, scoreColumn)); err != nil {
		return err
	}
	outputs := len(b.Scores) / len(b.Golden)
	for i, row := range b.Golden {
		fields = fields[:0]
		for k, v := range append(slices.Clone(row), slices.Max(b.Scores[i*outputs:(i+1)*outputs])) {
			text := ""
			switch {
			case math.IsNaN(v):
			case k < len(row) && v >= 0 && v < float64(len(b.Signature[k].Categories)):
				text = b.Signature[k].Categories[int(v)]
			default:
				text = strconv.FormatFloat(v, 'g', -1, 64)
			}
			fields = append(fields, text)
		}
		if err := w.Write(fields); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}

// writeWhole makes a file appear whole or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
	if err != nil {
		return failure.Wrap(failure.Unavailable, path, "writing file", err)
	}
	err = write(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return failure.Wrap(failure.Unavailable, path, "writing file", err)
	}
	return nil
}
