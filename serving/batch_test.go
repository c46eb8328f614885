package serving

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
)

// batchRig is a world whose offline log has arrivals and departures, and what the stage answered when each departure was asked about, with the
// state in Redis as it was at its time.
type batchRig struct {
	*world
	dir    string // of the offline log
	rows   []departure
	served map[string]predictionBody
}

type departure struct {
	id, origin string // "" is null
	at         time.Time
	distance   int64
}

func newBatchRig(t *testing.T) *batchRig {
	b := &batchRig{world: newWorld(t), dir: t.TempDir(), served: map[string]predictionBody{}}
	b.model().Serve.MissingAllowed = 0.4 // of two inputs none may be missing
	b.promote(byDelay(0.05))
	b.start()
	b.awaitReady()
	rng := rand.New(rand.NewPCG(5, 6))
	origins := []string{"ATL", "BOS", "DEN"}
	begin := noon.Add(-30 * time.Hour)
	var arrivals []arrival
	for i := range 600 {
		arrivals = append(arrivals, arrival{origins[rng.IntN(3)], begin.Add(time.Duration(i)*170*time.Second + 13*time.Millisecond), int64(rng.IntN(90) - 10)})
	}
	for i := range 80 {
		d := departure{fmt.Sprintf("f%03d", i), origins[rng.IntN(3)], begin.Add(time.Duration(i) * 25 * time.Minute), int64(100 + rng.IntN(2000))}
		switch i % 20 {
		case 7:
			d.origin = ""
		case 13:
			d.origin = "XXX"
		}
		b.rows = append(b.rows, d)
	}
	b.log("arrivals", func(add func(schemas.Row, int64)) {
		for i, a := range arrivals {
			add(schemas.Row{schemas.StringValue(fmt.Sprint("a", i)), schemas.TimeValue(a.at.UnixMilli()), schemas.StringValue(a.origin), schemas.IntValue(a.delay)}, a.at.UnixMilli())
		}
	})
	b.log("departures", func(add func(schemas.Row, int64)) {
		for _, d := range b.rows {
			origin := schemas.NullValue()
			if d.origin != "" {
				origin = schemas.StringValue(d.origin)
			}
			add(schemas.Row{schemas.StringValue(d.id), schemas.TimeValue(d.at.UnixMilli()), origin, schemas.IntValue(d.distance)}, d.at.UnixMilli())
		}
	})
	for _, d := range b.rows {
		n := 0
		for n < len(arrivals) && arrivals[n].at.Before(d.at) {
			n++
		}
		b.apply(arrivals[:n]...)
		arrivals = arrivals[n:]
		origin := `"` + d.origin + `"`
		if d.origin == "" {
			origin = "null"
		}
		_, a := b.post(fmt.Sprintf(`{"flight_id":%q,"scheduled":%q,"origin":%s,"distance":%d,"at":%q}`, d.id, d.at.Format(time.RFC3339), origin, d.distance, d.at.Format(time.RFC3339)))
		if len(a.Predictions) != 1 {
			t.Fatalf("%s: %+v", d.id, a)
		}
		b.served[d.id] = a.Predictions[0]
	}
	return b
}

func (b *batchRig) log(source string, fill func(add func(schemas.Row, int64))) {
	b.t.Helper()
	table := must[*offline.Table](b.t)(offline.EventsTable(b.dir, source, b.project.Source(source).Schema))
	w := must[*offline.Writer](b.t)(table.NewWriter(0, offline.DefaultWriterOptions()))
	n := int64(0)
	fill(func(row schemas.Row, at int64) {
		if err := w.Append(row, at, n); err != nil {
			b.t.Fatal(err)
		}
		n++
	})
	if err := errors.Join(w.Commit(n), w.Close()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *batchRig) request(parts ...BatchPart) BatchRequest {
	b.t.Helper()
	return BatchRequest{
		Project: b.project, Model: b.model(), Version: must[registry.Reference](b.t)(b.registry.Resolve("late")), OfflineDir: b.dir, Parts: parts, Limits: pit.Default(),
	}
}

func (b *batchRig) score(q BatchRequest) (*BatchReport, error) {
	return Batch(b.t.Context(), b.registry, q, func(string, int64, int64) {})
}

// answer is a row of a batch's output.
type batchAnswer struct {
	id, status, reason, digest string
	score                      float64 // NaN is null
	version                    int64
}

func (b *batchRig) read(path string) []batchAnswer {
	b.t.Helper()
	f := must[dataset.Columnar](b.t)(dataset.Open(b.t.Context(), path, b.t.TempDir(), nil))
	defer f.Close()
	var all []batchAnswer
	for r, err := range f.Records(b.t.Context(), nil) {
		if err != nil {
			b.t.Fatal(err)
		}
		at := func(name string) int { return f.Schema().FieldIndices(name)[0] }
		for i := range int(r.NumRows()) {
			a := batchAnswer{
				id: r.Column(at("flight_id")).ValueStr(i), status: r.Column(at("status")).ValueStr(i), digest: r.Column(at("digest")).ValueStr(i),
				score: math.NaN(), version: r.Column(at("version")).(*array.Int64).Value(i),
			}
			if c := r.Column(at("score")).(*array.Float64); c.IsValid(i) {
				a.score = c.Value(i)
			}
			if c := r.Column(at("reason")); c.IsValid(i) {
				a.reason = c.ValueStr(i)
			}
			all = append(all, a)
		}
	}
	return all
}

// check holds answers to what was served.
func (b *batchRig) check(what string, answers []batchAnswer, ids []string) {
	b.t.Helper()
	if len(answers) != len(ids) {
		b.t.Fatalf("%s: %d answers to %d rows", what, len(answers), len(ids))
	}
	refused := 0
	for i, a := range answers {
		want := b.served[ids[i]]
		if a.id != ids[i] || a.status != want.Rung || a.reason != want.Reason {
			b.t.Fatalf("%s: row %d is %+v, %s was served as %+v", what, i, a, ids[i], want)
		}
		if want.Score == nil {
			refused++
			if !math.IsNaN(a.score) {
				b.t.Errorf("%s: %s was refused, and scores %v", what, a.id, a.score)
			}
			continue
		}
		if !(math.Abs(a.score-*want.Score) <= 1e-9) || a.digest != want.Digest || a.version != 1 {
			b.t.Errorf("%s: %+v, served was %v", what, a, *want.Score)
		}
	}
	if refused < 8 || refused > len(ids)/2 {
		b.t.Errorf("%s: %d of %d were refused: the test shows little", what, refused, len(ids))
	}
}

func (b *batchRig) ids() []string {
	var ids []string
	for _, d := range b.rows {
		ids = append(ids, d.id)
	}
	return ids
}

// csv writes departures in another order than that of time.
func (b *batchRig) csv(path string, ids []string) {
	b.t.Helper()
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	_ = w.Write([]string{"distance", "flight_id", "origin", "scheduled", "note"}) // a buffer
	for _, id := range ids {
		d := b.rows[slices.IndexFunc(b.rows, func(d departure) bool { return d.id == id })]
		_ = w.Write([]string{fmt.Sprint(d.distance), d.id, d.origin, d.at.Format(time.RFC3339), "x"})
	}
	w.Flush()
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// What a batch scores is what was served: rows of the offline log and rows of files, in any order.
func TestBatchScoresWhatWasServed(t *testing.T) {
	b := newBatchRig(t)
	out := filepath.Join(t.TempDir(), "all.parquet")
	parts := must[[]BatchPart](t)(BatchEvents(b.dir, b.model(), 0, 0, out, "parquet", ""))
	report := must[*BatchReport](t)(b.score(b.request(parts...)))
	b.check("log", b.read(out), b.ids())
	refused := int64(0)
	for _, p := range b.served {
		if p.Score == nil {
			refused++
		}
	}
	if report.Rows != 80 || report.Refused != refused || report.Groups["origin_delays"] != b.group().Version {
		t.Errorf("report %+v", report)
	}
	folder := t.TempDir()
	parts = must[[]BatchPart](t)(BatchEvents(b.dir, b.model(), 0, 0, folder, "arrow", ""))
	if len(parts) != 3 && len(parts) != 2 {
		t.Fatalf("%d days", len(parts))
	}
	must[*BatchReport](t)(b.score(b.request(parts...)))
	var days []batchAnswer
	for _, p := range parts {
		days = append(days, b.read(p.Out)...)
	}
	b.check("days", days, b.ids())

	shuffled := b.ids()
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	in := filepath.Join(t.TempDir(), "rows.csv")
	b.csv(in, shuffled)
	parts = must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{in}, out, "", ""))
	q := b.request(parts...)
	q.Keep = []string{"flight_id"}
	must[*BatchReport](t)(b.score(q))
	b.check("file", b.read(out), shuffled)
}

// Integers of pandas are floats where one is missing, in Parquet and CSV, a column without a value has no type, and texts of Polars are views: they
// score as they do elsewhere, and are kept in Parquet, too.
func TestBatchOfPandas(t *testing.T) {
	b := newBatchRig(t)
	rows := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "flight_id", Type: arrow.BinaryTypes.StringView}, {Name: "origin", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "scheduled", Type: &arrow.TimestampType{Unit: arrow.Nanosecond}}, {Name: "distance", Type: arrow.PrimitiveTypes.Float64},
	}, nil))
	for _, d := range b.rows {
		rows.Field(0).(*array.StringViewBuilder).Append(d.id)
		if origin := rows.Field(1).(*array.StringBuilder); d.origin == "" {
			origin.AppendNull()
		} else {
			origin.Append(d.origin)
		}
		rows.Field(2).(*array.TimestampBuilder).Append(arrow.Timestamp(d.at.UnixNano()))
		rows.Field(3).(*array.Float64Builder).Append(float64(d.distance))
	}
	ids := b.ids()
	whole := rows.NewRecord()
	score := func(record arrow.Record) (string, error) {
		in, out := filepath.Join(t.TempDir(), "rows.arrow"), filepath.Join(t.TempDir(), "out.parquet")
		f := must[*os.File](t)(os.Create(in))
		w := must[*ipc.FileWriter](t)(ipc.NewFileWriter(f, ipc.WithSchema(record.Schema())))
		if err := errors.Join(w.Write(record), w.Close(), f.Close()); err != nil {
			t.Fatal(err)
		}
		q := b.request(must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{in}, out, "", ""))...)
		q.Keep = []string{"flight_id"}
		_, err := b.score(q)
		return out, err
	}
	out, err := score(whole)
	if err != nil {
		t.Fatal(err)
	}
	b.check("floats", b.read(out), ids)

	with := func(distance arrow.Array) arrow.Record {
		fields := append(whole.Schema().Fields()[:3:3], arrow.Field{Name: "distance", Type: distance.DataType(), Nullable: true})
		return array.NewRecord(arrow.NewSchema(fields, nil), append(whole.Columns()[:3:3], distance), whole.NumRows())
	}
	out, err = score(with(array.NewNull(int(whole.NumRows()))))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.read(out); len(got) != len(ids) {
		t.Errorf("%d rows without a distance, want %d", len(got), len(ids))
	}
	for _, not := range []float64{0.5, 1 << 60, math.Inf(1)} {
		floats := array.NewFloat64Builder(memory.DefaultAllocator)
		floats.AppendValues(slices.Repeat([]float64{1}, len(ids)-1), nil)
		floats.Append(not)
		if _, err := score(with(floats.NewArray())); failure.Of(err) != failure.BadRequest || !strings.Contains(err.Error(), fmt.Sprintf("distance: row %d", len(ids)-1)) {
			t.Errorf("a distance of %v: %v", not, err)
		}
	}

	in, to := filepath.Join(t.TempDir(), "rows.csv"), filepath.Join(t.TempDir(), "out.parquet")
	var text strings.Builder
	text.WriteString("flight_id,origin,scheduled,distance\n")
	for _, d := range b.rows {
		fmt.Fprintf(&text, "%s,%s,%s,%d.0\n", d.id, d.origin, d.at.Format(time.RFC3339), d.distance)
	}
	if err := os.WriteFile(in, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	q := b.request(must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{in}, to, "", ""))...)
	q.Keep = []string{"flight_id"}
	must[*BatchReport](t)(b.score(q))
	b.check("CSV", b.read(to), ids)
}

// Rows that carry the model's inputs need no log; the rest of the inputs is computed from the row.
func TestBatchOfGivenInputs(t *testing.T) {
	b := newBatchRig(t)
	in, out := filepath.Join(t.TempDir(), "rows.csv"), filepath.Join(t.TempDir(), "out.arrow")
	text := "flight_id,scheduled,distance,origin_delays.delay_mean_1h,origin_delays.delay_mean_24h,origin_delays.flights_1h,origin_delays.flights_24h\n" +
		"a,2001-05-20T12:30:00Z,1000,20,1,1,1\nb,2001-05-20T12:30:00Z,1000,,1,1,1\n"
	if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	parts := must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{in}, out, "", ""))
	q := b.request(parts...)
	q.Given, q.OfflineDir = true, filepath.Join(t.TempDir(), "none")
	must[*BatchReport](t)(b.score(q))
	got := b.read(out)
	if want := sigmoid(-1 + 0.05*20 + 0.001*1000); len(got) != 2 || math.Abs(got[0].score-want) > 1e-12 || got[0].status != schemas.RungPrimary {
		t.Errorf("got %+v, want %v", got, want)
	}
	if got[1].status != schemas.RungRefused || !strings.HasPrefix(got[1].reason, "too_many_missing") {
		t.Errorf("without an input: %+v", got[1])
	}
}

func TestBatchFaultsAreNamed(t *testing.T) {
	b := newBatchRig(t)
	out := filepath.Join(t.TempDir(), "out.parquet")
	for text, says := range map[string]string{
		"flight_id,scheduled,orign,distance\na,2001-05-20T12:30:00Z,ATL,1\n":                 `did you mean "orign"`,
		"flight_id,scheduled,origin,distance\na,,ATL,1\n":                                    "row 0 has no scheduled",
		"flight_id,scheduled,origin,distance\na,tomorrow,ATL,1\n":                            "tomorrow",
		"flight_id,scheduled,origin,distance,status\na,2001-05-20T12:30:00Z,ATL,1,on time\n": "--prefix",
		"flight_id,scheduled,origin,distance,distance\na,2001-05-20T12:30:00Z,ATL,1,2\n":     "2 columns",
		"flight_id,scheduled,origin,distance\na,2001-05-20T12:30:00Z,ATL,many\n":             "many",
		"flight_id,scheduled,origin\na,2001-05-20T12:30:00Z,ATL\n":                           "distance: the rows have no such column",
	} {
		in := filepath.Join(t.TempDir(), "rows.csv")
		if err := os.WriteFile(in, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		parts := must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{in}, out, "", ""))
		_, err := b.score(b.request(parts...))
		if err == nil || failure.Of(err) != failure.BadRequest || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	given := filepath.Join(t.TempDir(), "rows.csv")
	if err := os.WriteFile(given, []byte("distance,hour\n1,2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	q := b.request(must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), []string{given}, out, "", ""))...)
	q.Given = true
	if _, err := b.score(q); err == nil || !strings.Contains(err.Error(), "origin_delays.") {
		t.Errorf("without a group's input: %v", err)
	}
	if _, err := BatchFiles(t.Context(), b.model(), []string{given, given}, out, "", ""); failure.Of(err) != failure.BadRequest {
		t.Errorf("two to one file: %v", err)
	}
}

// A run that is cut short goes on where it ended; what is finished is not made again unless its rows, the model or its file are others.
func TestBatchIsResumed(t *testing.T) {
	b := newBatchRig(t)
	dir, out := t.TempDir(), t.TempDir()
	var files []string
	for i := range 4 {
		files = append(files, filepath.Join(dir, fmt.Sprintf("part%d.csv", i)))
		b.csv(files[i], b.ids()[20*i:20*i+20])
	}
	parts := func() []BatchPart {
		return must[[]BatchPart](t)(BatchFiles(t.Context(), b.model(), files, out, "parquet", ""))
	}
	ctx, cut := context.WithCancel(t.Context())
	_, err := Batch(ctx, b.registry, b.request(parts()...), func(_ string, done, _ int64) {
		if finished, _ := filepath.Glob(filepath.Join(out, "*.manifest.json")); len(finished) == 2 {
			cut()
		}
	})
	before := func(r *BatchReport) (n int) {
		for _, p := range r.Parts {
			if p.Before {
				n++
			}
		}
		return n
	}
	report := must[*BatchReport](t)(b.score(b.request(parts()...)))
	if err == nil && before(report) != 4 || err != nil && before(report) < 2 {
		t.Errorf("the first run ended with %v, %d parts were finished", err, before(report))
	}
	all := func() (answers []batchAnswer) {
		for _, p := range parts() {
			answers = append(answers, b.read(p.Out)...)
		}
		return answers
	}
	b.check("resumed", all(), b.ids())
	if n := before(must[*BatchReport](t)(b.score(b.request(parts()...)))); n != 4 {
		t.Errorf("%d of 4 parts were left as they are", n)
	}
	// A file that was damaged, rows that are others, and one whose manifest is gone are made again; one is left.
	for path, text := range map[string]string{parts()[0].Out: "rubbish", dataset.ManifestPath(parts()[1].Out): "{"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.csv(files[2], slices.Concat(b.ids()[41:60], b.ids()[40:41]))
	if n := before(must[*BatchReport](t)(b.score(b.request(parts()...)))); n != 1 {
		t.Errorf("%d parts were left as they are, want 1", n)
	}
	b.check("mended", all(), slices.Concat(b.ids()[:40], b.ids()[41:60], b.ids()[40:41], b.ids()[60:]))
	q := b.request(parts()...)
	q.Anew = true
	if n := before(must[*BatchReport](t)(b.score(q))); n != 0 {
		t.Errorf("%d parts were left as they are, none was to be", n)
	}
	b.model().Serve.Fallback = []project.Rung{{Kind: project.RungDefault, Score: 0.25}}
	if n := before(must[*BatchReport](t)(b.score(b.request(parts()...)))); n != 0 {
		t.Errorf("%d parts were left as they are, though refused rows are to have a default", n)
	}
	for _, a := range all() {
		if math.IsNaN(a.score) || (a.status == schemas.RungDefault) != (a.score == 0.25) {
			t.Errorf("%+v", a)
		}
	}
}
