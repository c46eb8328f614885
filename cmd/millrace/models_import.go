package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training"
)

// modelsImport makes a version of a model that was trained elsewhere.
type modelsImport struct {
	stored    `embed:""`
	Model     string   `arg:"" help:"The model of the project that it is to answer for."`
	File      string   `arg:"" help:"Model file: XGBoost JSON or UBJSON, LightGBM text, ONNX, or millrace's own; its content tells." type:"path"`
	Golden    string   `required:"" help:"Rows that the model is kept with and must always score the same: Parquet, Arrow or CSV, with a column for each of its inputs." type:"path" placeholder:"FILE"`
	Expected  string   `help:"Column of the golden rows with the scores that the model's own library gave (default: score, where there is one)." placeholder:"COLUMN"`
	Inputs    []string `help:"Names of the model's columns, in order, for a file that only numbers them." placeholder:"NAME,…"`
	Tolerance float64  `default:"1e-6" help:"How far a score may be from the expected one."`
	Reason    string   `help:"Why; kept with the version." placeholder:"TEXT"`
}

// maxGolden is how many golden rows are kept: of more, some evenly over all. All are held to their expected scores.
const maxGolden = 200

func (c *modelsImport) Run(ctx context.Context, env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	m, err := modelNamed(p, c.Model)
	if err != nil {
		return err
	}
	r, err := openRegistry(dataDir(p, c.DataDir))
	if err != nil {
		return err
	}
	mediaType, content, loaded, err := loadFile(c.File)
	if err != nil {
		return err
	}
	if err := checkTask(m, loaded.Task(), c.File); err != nil {
		return err
	}
	if loaded, err = c.named(loaded); err != nil {
		return err
	}
	signature, err := signatureOf(m, loaded.Inputs())
	if err != nil {
		return err
	}
	if signature, err = model.TakeCategories(signature, loaded); err != nil {
		return fmt.Errorf("reading %s: %w", c.File, err)
	}
	rows, err := c.goldenRows(ctx, loaded, signature)
	if err != nil {
		return err
	}
	var classes []string
	if len(loaded.Outputs()) > 1 {
		classes = loaded.Outputs()
	}
	bundle, err := model.PackBundle(signature, mediaType, content, classes, spread(rows, maxGolden))
	if err != nil {
		return err
	}
	packed, err := bundle.Encode()
	if err != nil {
		return err
	}
	about := map[string]string{"project": p.Name, "candidate": "import", "file": filepath.Base(c.File), "file_digest": registry.DigestOf(content)}
	if c.Reason != "" {
		about["reason"] = c.Reason
	}
	digest, err := r.Put(ctx, registry.Manifest{Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle, Code: version(), Annotations: about}, bytes.NewReader(packed))
	if err != nil {
		return err
	}
	number, err := r.AddVersion(m.Name, digest)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s@%d %s: %s, %d inputs, %d golden rows\n", m.Name, number, digest, mediaType, len(signature), len(bundle.Golden))
	return nil
}

// checkTask refuses a model whose score means something else than the project says. What orders rows is a number as a regression's is.
func checkTask(m *project.Model, task model.Task, file string) error {
	if task == m.Task || task == model.TaskRanking && m.Task == model.TaskRegression {
		return nil
	}
	declared := m.Task
	return failure.New(failure.Refused, file, "is a model for %s, and the project declares %s for %s", task, declared, m.Name).
		WithHint("is it the file that was meant? A ranking model answers for task: regression, any other for its own task")
}

// loadFile reads a model file, whatever it is called.
func loadFile(path string) (mediaType string, content []byte, m model.Model, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, nil, failure.New(failure.NotFound, path, "there is no such file")
	}
	if info.Size() > model.MaxBytes {
		return "", nil, nil, failure.New(failure.Refused, path, "has %d bytes, more than MaxBytes = %d", info.Size(), int64(model.MaxBytes))
	}
	if content, err = os.ReadFile(path); err != nil {
		return "", nil, nil, failure.Wrap(failure.Unavailable, path, "reading the model", err)
	}
	if mediaType, err = model.Detect(content); err != nil {
		return "", nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if m, err = model.Load(mediaType, content); err != nil {
		return "", nil, nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return mediaType, content, m, nil
}

// named gives the columns of a model that only numbers them the names that the command line has.
func (c *modelsImport) named(m model.Model) (model.Model, error) {
	switch {
	case len(c.Inputs) == 0:
		return m, nil
	case !model.Numbered(m):
		return nil, failure.New(failure.BadRequest, "--inputs", "the model's file names its columns: %s", strings.Join(m.Inputs(), ", "))
	case len(c.Inputs) != len(m.Inputs()):
		return nil, failure.New(failure.BadRequest, "--inputs", "%d names for %d columns", len(c.Inputs), len(m.Inputs()))
	}
	return model.Rename(m, c.Inputs)
}

// signatureOf matches a model's inputs by name to those that the project declares.
func signatureOf(m *project.Model, inputs []string) ([]model.SignatureInput, error) {
	declared := training.Signature(m)
	names := make([]string, len(declared))
	for i, in := range declared {
		names[i] = in.Name
	}
	var signature []model.SignatureInput
	var unknown []string
	for _, name := range inputs {
		if i := slices.Index(names, name); i >= 0 {
			signature = append(signature, declared[i])
		} else {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return signature, nil
	}
	e := failure.New(failure.Refused, m.Name, "the project declares no input %s, which the model has", strings.Join(unknown, ", "))
	if near := schemas.Nearest(unknown[0], names); near != "" {
		return nil, e.WithHint("did you mean %q? train with columns called as the project's inputs", near)
	}
	return nil, e.WithHint("train with columns called as the project's inputs (%s), or name those of a file that only numbers them with --inputs", strings.Join(names, ", "))
}

// goldenRows reads the rows, in the order of the model's inputs, and holds the model to the expected scores. An input with categories has their
// names, or codes.
func (c *modelsImport) goldenRows(ctx context.Context, m model.Model, signature []model.SignatureInput) ([][]float64, error) {
	kinds := map[string]schemas.Kind{}
	named := make([]*project.Categories, len(signature)+1) // and the score
	for i, in := range signature {
		kinds[in.Name] = schemas.Float
		if in.Categories != nil {
			kinds[in.Name], named[i] = schemas.String, project.NewCategories(in.Categories)
		}
	}
	file, err := dataset.Open(ctx, c.Golden, "", kinds)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read from
	expected := c.Expected
	if expected == "" && len(file.Schema().FieldIndices(scoreColumn)) == 1 {
		expected = scoreColumn
	}
	columns := m.Inputs()
	if expected != "" {
		columns = append(slices.Clone(columns), expected)
	}
	at := make([]int, len(columns))
	for i, name := range columns {
		found := file.Schema().FieldIndices(name)
		if len(found) != 1 {
			return nil, failure.New(failure.BadRequest, name, "%s has %d columns of this name", c.Golden, len(found))
		}
		if kind := offline.KindOf(file.Schema().Field(found[0]).Type); !kind.Numeric() && (named[i] == nil || kind != schemas.String) {
			return nil, failure.New(failure.BadRequest, name, "the column of %s is %s, not a number", c.Golden, kind)
		}
		at[i] = found[0]
	}
	var rows [][]float64
	for record, err := range file.Records(ctx, nil) {
		if err != nil {
			return nil, err
		}
		b, err := offline.NewBatch(record, at)
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			row := make([]float64, len(columns))
			for k := range columns {
				row[k] = math.NaN()
				if f, ok := named[k].Value(b.Value(i, k)).Float(); ok {
					row[k] = f
				}
			}
			inputs := row[:len(m.Inputs()):len(m.Inputs())]
			if got := m.Predict(inputs); expected != "" && !(math.Abs(got-row[len(inputs)]) <= c.Tolerance) {
				return nil, failure.New(failure.Refused, c.Golden, "row %d scores %v, and %s is %v", len(rows), got, expected, row[len(inputs)]).
					WithHint("the rows are not what the model's library scored, or this build scores it differently: nothing was imported")
			}
			rows = append(rows, inputs)
		}
	}
	if len(rows) == 0 {
		return nil, failure.New(failure.BadRequest, c.Golden, "has no rows: nothing would vouch for the model")
	}
	return rows, ctx.Err()
}

// spread picks at most n rows, evenly over all.
func spread(rows [][]float64, n int) [][]float64 {
	n = min(n, len(rows))
	picked := make([][]float64, n)
	for i := range picked {
		picked[i] = rows[i*len(rows)/n]
	}
	return picked
}
