package offline

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// The columns of a training set that are not inputs.
const (
	keyColumn   = "_key"
	labelColumn = "_label"
)

// DatasetWriter writes a training set as one Arrow file: the inputs as float64 (missing: null), then _key, _time and _label. The same
// rows in the same order give the same bytes. It is for one goroutine.
type DatasetWriter struct {
	path   string
	names  []string
	schema *arrow.Schema
	f      file
	sum    hash.Hash
	out    *arrowWriter
	rows   int64

	inputs []values
	key    values
	times  []int64
	labels []float64
}

// NewDatasetWriter starts a training set with the named inputs. The file appears at path when Close has returned.
func NewDatasetWriter(path string, names []string) (*DatasetWriter, error) {
	columns := make([]Column, len(names))
	for i, name := range names {
		if name == keyColumn || name == labelColumn {
			return nil, failure.New(failure.BadProject, path, "an input cannot be called %q", name)
		}
		columns[i] = Column{name, schemas.Float}
	}
	if err := checkColumns(path, columns); err != nil {
		return nil, err
	}
	d := osDisk{}
	if err := d.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, unavailable("", "writing training set", err)
	}
	f, err := d.Create(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
	if err != nil {
		return nil, unavailable("", "writing training set", err)
	}
	w := &DatasetWriter{path: path, names: append([]string(nil), names...), schema: datasetSchema(names), f: f, sum: sha256.New()}
	if w.out, err = newArrowWriter(io.MultiWriter(f, w.sum), w.schema, newArrowFiles()); err != nil {
		return nil, unavailable(path, "writing training set", w.abandon(err))
	}
	w.reset()
	return w, nil
}

func datasetSchema(names []string) *arrow.Schema {
	var fields []arrow.Field
	for _, name := range names {
		fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	return arrow.NewSchema(append(fields,
		arrow.Field{Name: keyColumn, Type: arrow.BinaryTypes.String},
		arrow.Field{Name: TimeColumn, Type: arrow.FixedWidthTypes.Timestamp_ms},
		arrow.Field{Name: labelColumn, Type: arrow.PrimitiveTypes.Float64}), nil)
}

func (w *DatasetWriter) reset() {
	w.inputs = make([]values, len(w.names))
	for i := range w.inputs {
		w.inputs[i].kind = schemas.Float
	}
	w.key = values{kind: schemas.String}
	w.times, w.labels = nil, nil
}

// Append adds a row: what tells it from others, its event time in Unix milliseconds, its label, and its inputs in the order of the
// names; NaN is a missing input. The values are copied.
func (w *DatasetWriter) Append(key string, time int64, label float64, inputs []float64) error {
	if len(inputs) != len(w.names) {
		return failure.New(failure.Internal, w.path, "a row has %d values for %d inputs", len(inputs), len(w.names))
	}
	n := len(w.times)
	for i, x := range inputs {
		if math.IsNaN(x) {
			w.inputs[i].add(n, schemas.NullValue())
		} else {
			w.inputs[i].add(n, schemas.FloatValue(x))
		}
	}
	w.key.add(n, schemas.StringValue(key))
	w.times = append(w.times, time)
	w.labels = append(w.labels, label)
	w.rows++
	if len(w.times) < rowsPerBatch {
		return nil
	}
	return w.flush()
}

// Rows is how many rows were appended.
func (w *DatasetWriter) Rows() int64 { return w.rows }

func (w *DatasetWriter) flush() error {
	n := len(w.times)
	if n == 0 {
		return nil
	}
	var arrays []arrow.Array
	for i := range w.inputs {
		arrays = append(arrays, w.inputs[i].array(arrow.PrimitiveTypes.Float64, 0, n))
	}
	arrays = append(arrays, w.key.array(arrow.BinaryTypes.String, 0, n),
		fixed(arrow.FixedWidthTypes.Timestamp_ms, arrow.Int64Traits.CastToBytes(w.times), n, nil, 0),
		fixed(arrow.PrimitiveTypes.Float64, arrow.Float64Traits.CastToBytes(w.labels), n, nil, 0))
	if err := w.out.Write(array.NewRecord(w.schema, arrays, int64(n))); err != nil {
		return unavailable(w.path, "writing training set", err)
	}
	w.reset()
	return nil
}

// Close completes the file and returns the digest of its bytes, "sha256:" and 64 hex digits. After an error there is no file.
func (w *DatasetWriter) Close() (digest string, err error) {
	if w.f == nil {
		return "", failure.New(failure.Internal, w.path, "the training set is closed")
	}
	err = w.flush()
	if err == nil {
		err = w.out.Close()
	}
	if err != nil {
		return "", unavailable(w.path, "writing training set", w.abandon(err))
	}
	f := w.f
	w.f = nil
	if err := keepFile(f, w.path); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(w.sum.Sum(nil)), nil
}

// Abort gives the file up. After Close it does nothing.
func (w *DatasetWriter) Abort() error { return w.abandon(nil) }

// abandon removes the file and returns err, or what went wrong with that.
func (w *DatasetWriter) abandon(err error) error {
	if w.f == nil {
		return err
	}
	f := w.f
	w.f = nil
	closed, removed := f.Close(), osDisk{}.Remove(f.Name())
	for _, e := range []error{closed, removed} {
		if err == nil {
			err = e
		}
	}
	return err
}

// Dataset is a training set in memory.
type Dataset struct {
	Names   []string
	Columns [][]float64 // one per input, each as long as there are rows; NaN is missing
	Keys    []string
	Times   []int64 // event time, Unix ms
	Labels  []float64
}

// ReadDataset reads what a DatasetWriter wrote.
func ReadDataset(path string) (d *Dataset, err error) {
	defer recoverCorrupt(path, &err)
	f, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, failure.Wrap(failure.NotFound, "", "opening training set", err)
		}
		return nil, failure.Wrap(failure.Unavailable, "", "opening training set", err)
	}
	defer f.Close()
	r, err := ipc.NewFileReader(f, ipc.WithAllocator(&boundedAllocator{}))
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "reading training set", err)
	}
	d = &Dataset{}
	for _, field := range r.Schema().Fields() {
		d.Names = append(d.Names, field.Name)
	}
	inputs := len(d.Names) - 3
	if inputs < 0 || !r.Schema().Equal(datasetSchema(d.Names[:inputs])) {
		return nil, failure.New(failure.Corrupt, path, "the file is not a training set")
	}
	d.Names = d.Names[:inputs]
	d.Columns = make([][]float64, inputs)
	for i := range r.NumRecords() {
		record, err := r.RecordAt(i)
		if err != nil {
			return nil, failure.Wrap(failure.Corrupt, path, "reading training set", err)
		}
		d.add(record)
	}
	return d, nil
}

func (d *Dataset) add(record arrow.Record) {
	for i := range d.Columns {
		column := record.Column(i).(*array.Float64)
		first := len(d.Columns[i])
		d.Columns[i] = append(d.Columns[i], column.Float64Values()...)
		for row := 0; column.NullN() > 0 && row < column.Len(); row++ {
			if column.IsNull(row) {
				d.Columns[i][first+row] = math.NaN()
			}
		}
	}
	n := len(d.Columns)
	keys := record.Column(n).(*array.String)
	for row := range keys.Len() {
		d.Keys = append(d.Keys, keys.Value(row))
	}
	for _, t := range record.Column(n + 1).(*array.Timestamp).TimestampValues() {
		d.Times = append(d.Times, int64(t))
	}
	d.Labels = append(d.Labels, record.Column(n+2).(*array.Float64).Float64Values()...)
}
