package script

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
)

// Target is what a script runs on.
type Target interface {
	// Apply takes one JSON record of a source. A record that cannot be applied is no error but a DeadLetter.
	Apply(ctx context.Context, source string, record []byte) error
	// SetClock says what time it is (Unix milliseconds) for the records that follow. Before the first call nothing is in the future.
	SetClock(ctx context.Context, at int64) error
	// Read returns the outputs of an entity by name, as of at (Unix milliseconds). It waits until all that was applied is
	// readable.
	Read(ctx context.Context, group string, entity map[string]string, at int64) (map[string]features.Result, error)
	// DeadLetters are those of all records so far, in their order. It waits until none can come any more.
	DeadLetters(ctx context.Context) ([]DeadLetter, error)
	// EntityColumns are the columns that name an entity of the group.
	EntityColumns(group string) ([]string, error)
}

// DeadLetter is a record that could not be applied, by its source or by one of the groups.
type DeadLetter struct {
	Record        int // 0 for the first that was given to Apply
	Class, Reason string
}

// Failure is one line of a script that did not hold, or could not be run.
type Failure struct {
	File string
	Line int
	Err  error
}

func (f *Failure) Error() string { return fmt.Sprintf("%s:%d: %v", f.File, f.Line, f.Err) }

func (f *Failure) Unwrap() error { return f.Err }

// Run runs one script on a target. name is the file's, for messages. The error joins a *Failure for every expectation
// that does not hold; a line that cannot be run ends the script.
func Run(ctx context.Context, t Target, name string, text []byte) error {
	r := runner{target: t, name: name}
	_, err := r.run(ctx, text)
	return err
}

// Update runs a script and returns it with the values that the target gave in place of expectations that do not hold,
// to be reviewed as a diff.
func Update(ctx context.Context, t Target, name string, text []byte) ([]byte, error) {
	r := runner{target: t, name: name, update: true}
	return r.run(ctx, text)
}

type runner struct {
	target       Target
	name         string
	update       bool
	at           int64
	clock        bool // at is set
	expectations int
	failures     []error
	records      []int // the line of each record
	told         int   // records before the last line that told of dead letters
}

func (r *runner) run(ctx context.Context, text []byte) ([]byte, error) {
	archive := txtar.Parse(text)
	lines := bytes.SplitAfter(archive.Comment, []byte("\n"))
	stopped := false
	for i := 0; i < len(lines) && !stopped; i++ {
		rewritten, err := r.line(ctx, i+1, strings.TrimSpace(string(lines[i])))
		if err != nil {
			r.fail(i+1, err)
			stopped = true
		}
		if rewritten != "" {
			lines[i] = []byte(rewritten + "\n")
		}
	}
	if !stopped {
		r.untold(ctx)
	}
	if r.expectations == 0 && len(r.failures) == 0 {
		r.fail(1, errors.New("the script expects nothing"))
	}
	archive.Comment = bytes.Join(lines, nil)
	return txtar.Format(archive), errors.Join(r.failures...)
}

func (r *runner) fail(line int, err error) {
	r.failures = append(r.failures, &Failure{File: r.name, Line: line, Err: err})
}

// line runs one line, and returns it anew when it is to be rewritten.
func (r *runner) line(ctx context.Context, number int, line string) (rewritten string, err error) {
	command, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return "", nil
	case command == "event":
		r.records = append(r.records, number)
		return "", r.event(ctx, rest)
	case command == "at":
		return "", r.moveClock(ctx, rest)
	case command == "expect":
		return r.expect(ctx, number, rest)
	case command == "dead-letters":
		return r.deadLetters(ctx, number, rest)
	}
	return "", failure.New(failure.BadProject, "", "there is no command %q, only event, at, expect and dead-letters", command)
}

func (r *runner) event(ctx context.Context, rest string) error {
	source, record, ok := strings.Cut(rest, " ")
	if !ok {
		return failure.New(failure.BadProject, "", "an event is: event <source> <JSON record>")
	}
	if err := r.target.Apply(ctx, source, []byte(strings.TrimSpace(record))); err != nil {
		return fmt.Errorf("applying an event of %s: %w", source, err)
	}
	return nil
}

func (r *runner) moveClock(ctx context.Context, rest string) error {
	t, err := time.Parse(time.RFC3339Nano, rest)
	if err != nil {
		return failure.New(failure.BadProject, "", "%q is no RFC 3339 time such as 2001-01-01T00:15:00Z", rest)
	}
	r.at, r.clock = t.UnixMilli(), true
	return r.target.SetClock(ctx, r.at)
}

func (r *runner) expect(ctx context.Context, number int, rest string) (rewritten string, err error) {
	words, err := splitQuoted(rest, ' ')
	switch {
	case err != nil:
		return "", err
	case !r.clock:
		return "", failure.New(failure.BadProject, "", "there is no time yet to expect anything at: begin with at <time>")
	case len(words) < 3:
		return "", failure.New(failure.BadProject, "", "an expectation is: expect <group> <entity> <output>=<value> …")
	}
	group := words[0]
	columns, err := r.target.EntityColumns(group)
	if err != nil {
		return "", err
	}
	entity, err := parseEntity(words[1], columns)
	if err != nil {
		return "", err
	}
	results, err := r.target.Read(ctx, group, entity, r.at)
	if err != nil {
		return "", fmt.Errorf("reading %s %s: %w", group, words[1], err)
	}
	for i, word := range words[2:] {
		got, err := r.compare(word, results)
		if err != nil {
			return "", err
		}
		if got == "" {
			continue
		}
		if r.update {
			output, _, _ := strings.Cut(word, "=")
			words[2+i] = output + "=" + got
			rewritten = "expect " + strings.Join(words, " ")
			continue
		}
		r.fail(number, fmt.Errorf("%s %s: got %s, want %s", group, words[1], got, word))
	}
	return rewritten, nil
}

// compare returns what came instead of an expected value, nothing when it is as expected.
func (r *runner) compare(word string, results map[string]features.Result) (got string, err error) {
	output, want, ok := strings.Cut(word, "=")
	if !ok {
		return "", failure.New(failure.BadProject, "", "%q is not <output>=<value>", word)
	}
	result, ok := results[output]
	if !ok {
		return "", failure.New(failure.BadProject, "", "%s", unknownOutput(output, results))
	}
	r.expectations++
	same, err := matches(want, result)
	if err != nil || same {
		return "", err
	}
	return format(result), nil
}
