package serving

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// BatchPart is rows that make one file of a batch.
type BatchPart struct {
	Name   string // where the rows come from
	Digest string // of what they are read from
	Out    string // file to write, .parquet or .arrow
	Open   func(context.Context) (dataset.Columnar, error)
}

// BatchFiles makes a part of each file. out is a file, for one, or a folder.
func BatchFiles(ctx context.Context, m *project.Model, paths []string, out, format, tempDir string) ([]BatchPart, error) {
	kinds := map[string]schemas.Kind{}
	for _, c := range m.On.Schema.Columns {
		kinds[c.Name] = c.Kind
	}
	var parts []BatchPart
	taken := map[string]string{}
	for _, path := range paths {
		digest, err := dataset.FileDigest(ctx, path)
		if err != nil {
			return nil, err
		}
		to := out
		if !isFile(out) {
			base := filepath.Base(path)
			to = filepath.Join(out, strings.TrimSuffix(base, filepath.Ext(base))+"."+format)
		}
		if other, twice := taken[to]; twice {
			return nil, failure.New(failure.BadRequest, path, "it and %s would both be written to %s", other, to).
				WithHint("write to a folder, with files of different names")
		}
		taken[to] = path
		parts = append(parts, BatchPart{Name: path, Digest: digest, Out: to, Open: func(ctx context.Context) (dataset.Columnar, error) {
			return dataset.Open(ctx, path, tempDir, kinds)
		}})
	}
	return parts, nil
}

// isFile reports whether a name is that of an output file rather than of a folder.
func isFile(out string) bool {
	return slices.Contains([]string{".parquet", ".pq", ".arrow", ".feather", ".ipc"}, strings.ToLower(filepath.Ext(out)))
}

// MaxBatchDays is how many days of a source can be scored at once: each is a file.
const MaxBatchDays = 4000

// BatchEvents makes a part of each UTC day of the offline events of the model's source in [from, until), Unix milliseconds; of all of them when out
// is a file.
func BatchEvents(offlineDir string, m *project.Model, from, until int64, out, format, tempDir string) ([]BatchPart, error) {
	source := m.On
	t, err := offline.EventsTable(offlineDir, source.Name, source.Schema)
	if err != nil {
		return nil, err
	}
	stats, err := t.Stats()
	if err != nil {
		return nil, err
	}
	if from == 0 {
		from = stats.From
	}
	if until == 0 {
		until = stats.Until
	}
	var parts []BatchPart
	add := func(name, to string, opts offline.ScanOptions) error {
		digest, _, err := t.Digest(opts)
		if err != nil {
			return err
		}
		var accept func(schemas.Row) bool
		if source.Where != nil {
			accept = source.Accepts
		}
		parts = append(parts, BatchPart{Name: name, Digest: digest, Out: to, Open: func(ctx context.Context) (dataset.Columnar, error) {
			return dataset.OpenEvents(ctx, t, opts, accept, tempDir, name)
		}})
		return nil
	}
	span := func(from, until int64) string {
		return source.Name + " from " + instantText(from) + " until " + instantText(until)
	}
	if isFile(out) {
		return parts, add(span(from, until), out, offline.ScanOptions{From: from, Until: until})
	}
	day := duration.Day.Milliseconds()
	for at := from; at < until; {
		next := min(until, at-mod(at, day)+day)
		if len(parts) == MaxBatchDays {
			return nil, failure.New(failure.Refused, source.Name, "more than MaxBatchDays = %d days", MaxBatchDays).WithHint("narrow --from and --until")
		}
		name := source.Name + "-" + time.UnixMilli(at).UTC().Format("2006-01-02T150405") + "." + format
		if err := add(span(at, next), filepath.Join(out, name), offline.ScanOptions{From: at, Until: next}); err != nil {
			return nil, err
		}
		at = next
	}
	return parts, nil
}

func mod(a, b int64) int64 { return (a%b + b) % b }

func instantText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

// batchPart is a part on its way.
type batchPart struct {
	BatchPart
	key     string
	rows    dataset.Columnar
	layout  *batchLayout
	next    func() (arrow.Record, error, bool)
	stop    func()
	left    arrow.Record // not yet scored
	out     *dataset.FileWriter
	scored  int64
	refused int64
}

func (p *batchPart) close() {
	if p.left != nil {
		p.left.Release()
		p.left = nil
	}
	if p.stop != nil {
		p.stop()
	}
	if p.out != nil {
		p.out.Abandon()
	}
	if p.rows != nil {
		_ = p.rows.Close() // it was only read from
		p.rows = nil
	}
}

// record is the next at most n rows; nil at the end.
func (p *batchPart) record(ctx context.Context, n int) (arrow.Record, error) {
	if p.next == nil {
		p.next, p.stop = iter.Pull2(p.rows.Records(ctx, p.layout.fields))
	}
	for p.left == nil || p.left.NumRows() == 0 {
		r, err, more := p.next()
		if err != nil || !more {
			return nil, err
		}
		if p.left != nil {
			p.left.Release()
		}
		r.Retain()
		p.left = r
	}
	take := min(int64(n), p.left.NumRows())
	taken, rest := p.left.NewSlice(0, take), p.left.NewSlice(take, p.left.NumRows())
	p.left.Release()
	p.left = rest
	return taken, nil
}

// BatchReport is the manifest of a run.
type BatchReport struct {
	Project string            `json:"project"`
	Model   string            `json:"model"`
	Version int               `json:"version"`
	Digest  string            `json:"digest"` // of the model
	Inputs  string            `json:"inputs"` // given, or joined as of the rows' times
	Groups  map[string]string `json:"groups"` // versions of the feature groups, where they were joined
	Code    string            `json:"code"`
	Parts   []BatchPartReport `json:"parts"`
	Rows    int64             `json:"rows"`
	Refused int64             `json:"refused"` // rows without a score
}

// BatchPartReport is the manifest of a part. It lies beside the part's file.
type BatchPartReport struct {
	In       string `json:"in"`
	InDigest string `json:"in_digest"`
	Key      string `json:"key"` // of all that the part depends on; one with the same key is not made again
	Out      string `json:"out"`
	Digest   string `json:"digest"`
	Bytes    int64  `json:"bytes"`
	Rows     int64  `json:"rows"`
	Refused  int64  `json:"refused"`
	Before   bool   `json:"-"` // it was finished by an earlier run
}

func newBatchReport(q BatchRequest) *BatchReport {
	r := &BatchReport{
		Project: q.Project.Name, Model: q.Model.Name, Version: q.Version.Number, Digest: q.Version.Digest, Inputs: "joined", Code: q.Code,
		Groups: map[string]string{}, Parts: []BatchPartReport{},
	}
	if q.Given {
		r.Inputs = "given"
		return r
	}
	for _, g := range q.Model.Groups() {
		r.Groups[g.Name] = g.Version
	}
	return r
}

func (r *BatchReport) add(p BatchPartReport) {
	r.Parts = append(r.Parts, p)
	r.Rows, r.Refused = r.Rows+p.Rows, r.Refused+p.Refused
}

// key names what a part depends on: its rows, the model, how it is asked, what the project does with rows that it cannot answer. Not the events
// that features are joined from: rows are scored when what is to be known of them is there.
func (b *batch) key(p BatchPart) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	serve := b.Model.Serve
	_ = enc.Encode([]any{p.Name, p.Digest, b.report.Digest, b.report.Inputs, b.report.Groups, b.Keep, b.Prefix, filepath.Ext(p.Out), serve.MissingAllowed, serve.Required})
	for _, r := range serve.Fallback {
		rule := ""
		if r.Rule != nil {
			rule = r.Rule.Meaning()
		}
		_ = enc.Encode([]any{r.Kind, r.Score, rule}) // a hash does not fail to be written to
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// readPartReport gives the report of a part that is finished; nil when it is not, or was made of something else, or its file is not what it was.
func readPartReport(ctx context.Context, p BatchPart, key string) (*BatchPartReport, error) {
	path := dataset.ManifestPath(p.Out)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, path, "reading manifest", err)
	}
	var r BatchPartReport
	if json.Unmarshal(b, &r) != nil || r.Key != key {
		return nil, nil
	}
	digest, err := dataset.FileDigest(ctx, p.Out)
	if failure.Of(err) == failure.NotFound && err != nil || err == nil && digest != r.Digest {
		return nil, nil
	}
	r.Out, r.Before = p.Out, true
	return &r, err
}

// finish makes a part's files appear, the manifest last.
func (b *batch) finish(p *batchPart) error {
	manifest := dataset.ManifestPath(p.Out)
	if err := removeOld(manifest); err != nil {
		return err
	}
	out := p.out
	p.out = nil
	if err := out.Close(); err != nil {
		return err
	}
	r := BatchPartReport{
		In: p.Name, InDigest: p.Digest, Key: p.key, Out: filepath.Base(p.Out), Digest: out.Digest(), Bytes: out.Bytes(), Rows: p.scored, Refused: p.refused,
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return failure.Wrap(failure.Internal, p.Out, "encoding manifest", err)
	}
	if err := writeWhole(manifest, append(text, '\n')); err != nil {
		return err
	}
	r.Out = p.Out
	b.report.add(r)
	p.close()
	return nil
}

// take scores and writes the next n rows, over as many parts as they are in, and gives how many there were. A part is finished when its end is
// met. block, where there is one, has the joined values of just these rows.
func (b *batch) take(ctx context.Context, n int, block *pit.Block) (int, error) {
	taken := 0
	for taken < n && b.current < len(b.parts) {
		p := b.parts[b.current]
		if p.out == nil {
			var err error
			if p.out, err = dataset.NewFileWriter(p.Out, p.layout.schema, p.layout.kept); err != nil {
				return taken, err
			}
		}
		record, err := p.record(ctx, n-taken)
		if err != nil {
			return taken, fmt.Errorf("reading %s: %w", p.Name, err)
		}
		if record == nil {
			if err := ctx.Err(); err != nil {
				return taken, err
			}
			if err := b.finish(p); err != nil {
				return taken, err
			}
			b.current++
			continue
		}
		err = b.score(p, record, block, taken)
		taken += int(record.NumRows())
		b.done += record.NumRows()
		record.Release()
		if err != nil {
			return taken, err
		}
	}
	b.progress("scored", b.done, max(b.total, b.done))
	return taken, ctx.Err()
}
