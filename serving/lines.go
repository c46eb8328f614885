package serving

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/failure"
)

// linesAtATime is how many lines are scored, by all processors, before their answers are written.
const linesAtATime = 1024

// Lines is what ScoreLines answered.
type Lines struct {
	Rows    int // answers, one for each line that is not empty
	Refused int // of them without a score, because every rung of the ladder refused
	Unread  int // of them problems: the line is no row of the model's source
}

// ScoreLines scores rows as JSON lines: one row of POST /v1/models/{model}:score in a line, at most Config.MaxBody bytes long. For each it
// writes one line, in their order: the row's answer as it stands in "predictions", or {"line": N, "problem": …} for a line that is no row.
// No deadline holds but ctx's. The model must be loaded (Load). NotFound for a model that the project does not have.
func (s *Stage) ScoreLines(ctx context.Context, model string, in io.Reader, out io.Writer) (Lines, error) {
	var done Lines
	d, ok := s.models[model]
	if !ok {
		return done, failure.New(failure.NotFound, model, "the project has no such model")
	}
	lines, w := newLineReader(in, int(s.cfg.MaxBody)), bufio.NewWriter(out)
	for more := true; more; {
		batch, err := lines.next(linesAtATime)
		if more = err == nil; !more && !errors.Is(err, io.EOF) {
			return done, failure.Wrap(failure.Unavailable, "rows", "reading lines", err)
		}
		g, within := errgroup.WithContext(ctx)
		g.SetLimit(runtime.GOMAXPROCS(0))
		for i := range batch {
			g.Go(func() error {
				s.answerLine(within, d, &batch[i])
				return within.Err()
			})
		}
		if err := g.Wait(); err != nil {
			return done, fmt.Errorf("scoring lines: %w", err)
		}
		for i := range batch {
			if _, err := w.Write(batch[i].answer); err != nil {
				return done, failure.Wrap(failure.Unavailable, "answers", "writing lines", err)
			}
			done.count(batch[i].kind)
		}
		if err := w.Flush(); err != nil {
			return done, failure.Wrap(failure.Unavailable, "answers", "writing lines", err)
		}
	}
	return done, nil
}

// line is one row and its answer.
type line struct {
	number int // from 1
	text   []byte
	long   bool // longer than is read
	answer []byte
	kind   lineKind
}

type lineKind uint8

const (
	lineScored lineKind = iota
	lineRefused
	lineUnread
)

func (l *Lines) count(kind lineKind) {
	l.Rows++
	switch kind {
	case lineRefused:
		l.Refused++
	case lineUnread:
		l.Unread++
	}
}

func (s *Stage) answerLine(ctx context.Context, d *deployment, l *line) {
	if l.long {
		l.fail(badRequest(codeBodyTooLarge, "", "the line has more than %d bytes", s.cfg.MaxBody))
		return
	}
	predictions, _, p := s.ask(ctx, d, l.text, "", s.deps.Clock())
	switch {
	case p != nil:
		l.fail(p)
	case len(predictions) != 1:
		l.fail(badRequest(codeTooManyRows, fieldRows, "%d rows in a line, which is one row", len(predictions)))
	default:
		if predictions[0].Refused {
			l.kind = lineRefused
		}
		l.answer = append(appendPrediction(nil, predictions[0]), '\n')
	}
}

func (l *line) fail(p *problem) {
	l.kind = lineUnread
	b, err := json.Marshal(struct {
		Line    int      `json:"line"`
		Problem *problem `json:"problem"`
	}{l.number, p.named()})
	if err != nil { // of our own types it cannot fail
		b = []byte("null")
	}
	l.answer = append(b, '\n')
}

// lineReader cuts its input into lines. One that is too long is passed over, and known to have been there.
type lineReader struct {
	r      *bufio.Reader
	number int
}

func newLineReader(in io.Reader, longest int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(in, longest+2)} // the end of the line, at most \r\n
}

// next gives up to n lines that are not empty; io.EOF with the last.
func (r *lineReader) next(n int) (lines []line, err error) {
	for len(lines) < n && err == nil {
		var text []byte
		text, err = r.r.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.r.ReadSlice('\n')
		}
		r.number++
		if text = bytes.TrimSpace(text); len(text) > 0 || long {
			lines = append(lines, line{number: r.number, text: bytes.Clone(text), long: long})
		}
	}
	return lines, err
}
