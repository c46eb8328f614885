package profile

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// FormatVersion is the layout of an encoded Baseline. Decode refuses others.
const FormatVersion = 1

// Limits of an encoded Baseline that Decode accepts.
const (
	MaxColumns = 10_000
	MaxChunks  = 10_000
)

// Baseline is the profile of the rows that a model was trained on. It is immutable once built and held out, and safe for
// concurrent reading.
type Baseline struct {
	Format  int      `json:"format"`
	Rows    int64    `json:"rows"`
	Columns []Column `json:"columns"`
	// Score profiles the model's answers to rows it was not trained on; nil until HoldOut.
	Score *Column `json:"score,omitempty"`
	// Performance is what was reached on those rows; nil until HoldOut is given labels of both classes.
	Performance *Performance `json:"performance,omitempty"`
	// Loss is the same of a model whose labels are no yes or no; nil until HoldOutLoss.
	Loss *HeldOutLoss `json:"loss,omitempty"`
}

// Performance is how well a model did on held-out rows, and how much that varied from chunk to chunk.
type Performance struct {
	Rows             int64   `json:"rows"`
	AUC              float64 `json:"auc"`
	CalibrationError float64 `json:"calibration_error"`
	// Chunks is the number of chunks that had both classes; Variance the sample variance of their AUC beyond what their
	// sizes explain.
	Chunks   int     `json:"chunks"`
	Variance float64 `json:"variance"`
}

// Chunk is the number of the window of the given length that the event time t (Unix milliseconds) falls into: what Build and
// HoldOut expect, so that chunks and live windows have the same borders.
func Chunk(t int64, window time.Duration) int {
	w := window.Milliseconds()
	if w <= 0 {
		return 0
	}
	n := t / w
	if t%w < 0 {
		n--
	}
	return int(n)
}

// Build profiles training rows. columns[i] holds the values of names[i], one per row, NaN for null. chunk gives the window
// (see Chunk) of each row and may be nil when that is not known: thresholds can then not be calibrated and are the
// conventional ones. Build panics when the lengths disagree, which is a fault of the caller.
func Build(names []string, columns [][]float64, chunk []int) *Baseline {
	if len(names) != len(columns) {
		panic(fmt.Sprintf("profile: %d names for %d columns", len(names), len(columns)))
	}
	b := &Baseline{Format: FormatVersion, Columns: make([]Column, len(names))}
	if len(columns) > 0 {
		b.Rows = int64(len(columns[0]))
	}
	dense, chunks := denseChunks(chunk, int(b.Rows))
	var wait sync.WaitGroup
	for i := range columns {
		if int64(len(columns[i])) != b.Rows {
			panic(fmt.Sprintf("profile: column %s has %d rows, %s has %d", names[i], len(columns[i]), names[0], b.Rows))
		}
		wait.Go(func() { b.Columns[i] = cutColumn(names[i], columns[i], dense, chunks) })
	}
	wait.Wait()
	return b
}

// HoldOut adds what the model says of rows that it was not trained on: the profile of its scores, and how well they rank
// (labels, 0 or 1, may be nil). chunk is as in Build.
func (b *Baseline) HoldOut(scores, labels []float64, chunk []int) {
	dense, chunks := denseChunks(chunk, len(scores))
	score := cutColumn(ScoreColumn, scores, dense, chunks)
	b.Score = &score
	if labels == nil {
		return
	}
	if len(labels) != len(scores) {
		panic(fmt.Sprintf("profile: %d labels for %d scores", len(labels), len(scores)))
	}
	b.Performance = heldOutPerformance(scores, labels, dense, chunks)
}

// ScoreColumn is the name of the profile of a model's answers.
const ScoreColumn = "score"

// denseChunks numbers the chunks 0, 1, 2… in ascending order of the given numbers.
func denseChunks(chunk []int, rows int) (dense []int32, chunks int) {
	dense = make([]int32, rows)
	if chunk == nil || rows == 0 {
		return dense, 1
	}
	if len(chunk) != rows {
		panic(fmt.Sprintf("profile: %d chunk numbers for %d rows", len(chunk), rows))
	}
	order := slices.Clone(chunk)
	slices.Sort(order)
	order = slices.Compact(order)
	for i, c := range chunk {
		at, _ := slices.BinarySearch(order, c)
		dense[i] = int32(at)
	}
	return dense, len(order)
}

func heldOutPerformance(scores, labels []float64, chunk []int32, chunks int) *Performance {
	auc, ok := AUC(scores, labels)
	if !ok {
		return nil
	}
	p := &Performance{Rows: int64(len(scores)), AUC: auc, CalibrationError: CalibrationError(scores, labels, CalibrationBins)}
	perChunk, noise := make([]float64, 0, chunks), 0.0
	chunkScores, chunkLabels := make([][]float64, chunks), make([][]float64, chunks)
	for i, c := range chunk {
		chunkScores[c] = append(chunkScores[c], scores[i])
		chunkLabels[c] = append(chunkLabels[c], labels[i])
	}
	for c := range chunks {
		a, ok := AUC(chunkScores[c], chunkLabels[c])
		positives := countPositive(chunkLabels[c])
		if !ok || len(chunkLabels[c]) < minChunkRows {
			continue
		}
		perChunk = append(perChunk, a)
		noise += square(AUCError(a, positives, int64(len(chunkLabels[c]))-positives))
	}
	p.Chunks = len(perChunk)
	if p.Chunks > 1 {
		_, v := meanVariance(perChunk)
		p.Variance = math.Max(0, v-noise/float64(p.Chunks))
	}
	return p
}

// Encode writes the baseline as JSON, the same bytes for the same rows.
func (b *Baseline) Encode() ([]byte, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encoding baseline: %w", err)
	}
	return text, nil
}

// Decode reads what Encode wrote. Anything else is an error of kind Corrupt.
func Decode(text []byte) (*Baseline, error) {
	var b Baseline
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "baseline", "decoding", err)
	}
	if b.Format != FormatVersion {
		return nil, failure.New(failure.Corrupt, "baseline", "format %d is not %d", b.Format, FormatVersion)
	}
	if len(b.Columns) > MaxColumns {
		return nil, failure.New(failure.Corrupt, "baseline", "%d columns are more than %d", len(b.Columns), MaxColumns)
	}
	for i := range b.Columns {
		if err := b.Columns[i].check(); err != nil {
			return nil, err
		}
	}
	if b.Score != nil {
		if err := b.Score.check(); err != nil {
			return nil, err
		}
	}
	return &b, nil
}
