package trainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Program is what is run.
type Program struct {
	Command []string // program and arguments; the path of job.json is added as the last
	Dir     string   // it is run in
	Env     map[string]string
	Timeout time.Duration
	KeepLog int // bytes of what it prints that are kept, the last ones
}

// inherited are the variables that a program gets of Millrace's own environment: what it needs to start, and no secret.
var inherited = []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}

// grace is how long a program that was killed may take to be gone.
const grace = 5 * time.Second

// Result is what a program made.
type Result struct {
	Model     model.Model
	MediaType string // of Bytes
	Bytes     []byte // the model's file
	Log       string // the tail of what the program printed; it is there with an error, too
}

// Run has the program train on train and valid. What the program did wrong is an error of kind Refused; when ctx ends, the
// error is that of ctx.
func Run(ctx context.Context, p Program, job Job, train, valid Rows) (r Result, err error) {
	dir, err := os.MkdirTemp("", "millrace-train-")
	if err != nil {
		return r, failure.Wrap(failure.Unavailable, job.Candidate, "making the job's folder", err)
	}
	defer os.RemoveAll(dir)
	if err := job.lay(dir, train, valid); err != nil {
		return r, fmt.Errorf("laying out the job: %w", err)
	}
	if r.Log, err = p.run(ctx, filepath.Join(dir, JobFile)); err != nil {
		return r, err
	}
	out := filepath.Join(dir, job.Out)
	if err := r.read(out, job); err != nil {
		return r, fmt.Errorf("taking the model over: %w", err)
	}
	if err := agree(out, r.Model, valid); err != nil {
		return r, fmt.Errorf("comparing scores: %w", err)
	}
	return r, nil
}

// run runs the program to its end.
func (p *Program) run(ctx context.Context, job string) (log string, err error) {
	limited, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	cmd := exec.CommandContext(limited, p.Command[0], append(slices.Clone(p.Command[1:]), job)...)
	cmd.Dir, cmd.Env = p.Dir, p.environment()
	cmd.WaitDelay = grace
	printed := &tail{limit: p.KeepLog}
	cmd.Stdout, cmd.Stderr = printed, printed
	killAll := ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return "", failure.Wrap(failure.Refused, p.Command[0], "starting the program", err).
			WithHint("install it where the train role runs; it is run in %s", p.Dir)
	}
	err = cmd.Wait()
	killAll() // what it may have left behind
	log = printed.String()
	switch {
	case ctx.Err() != nil:
		return log, ctx.Err()
	case limited.Err() != nil:
		return log, p.failed(log, "it ran longer than its timeout of %s and was killed", duration.Format(p.Timeout))
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // a child that holds its output open is no fault of the model's
		return log, p.failed(log, "%v", err)
	default:
		return log, nil
	}
}

// failed is an error that ends with what the program printed last.
func (p *Program) failed(log, format string, args ...any) error {
	err := failure.New(failure.Refused, strings.Join(p.Command, " "), format, args...)
	if log == "" {
		return err.WithHint("it printed nothing")
	}
	return err.WithHint("it printed last: %s", log)
}

func (p *Program) environment() []string {
	var env []string
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		env = append(env, name+"="+p.Env[name]) // of two, the last counts
	}
	return env
}

// tail keeps the last bytes of what is written to it.
type tail struct {
	limit   int
	kept    []byte
	dropped bool
}

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - t.limit; over > 0 {
		t.kept, t.dropped = append(t.kept[:0], t.kept[over:]...), true
	}
	return len(b), nil
}

func (t *tail) String() string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "�"))
	if t.dropped {
		text = "…" + text
	}
	return text
}
