package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// demoCommand is the whole loop on real flights. It is a user of the platform like any other: it produces events to Kafka,
// reads the topics that the stages write, and calls the scoring endpoint.
type demoCommand struct {
	servers  `embed:""`
	Data     string        `help:"Flights file to replay instead of the committed sample (Parquet: date, delay, distance, origin, destination)." type:"existingfile"`
	Exit     bool          `help:"End when the loop has been seen, instead of going on running; status 0 when every step happened."`
	JSON     bool          `name:"json" help:"Print the summary as one JSON object on the last line of standard output; progress goes to standard error."`
	Patience time.Duration `help:"The longest wait for one step before the demo gives up on it." default:"3m"`
}

// lead is how much event time the replay may be ahead of the predictions: the sources' lateness, within which features
// of a past moment are still read exactly.
const lead = 2 * time.Hour

func (c *demoCommand) Run(ctx context.Context, env *environment) error {
	if err := c.place(); err != nil {
		return err
	}
	rt, err := c.open(ctx, env, opening{kafka: true, redis: true, embed: true})
	if err != nil {
		return err
	}
	defer rt.close()
	if err := c.listen(ctx, rt); err != nil {
		return err
	}
	d := &demo{rt: rt, patience: c.Patience, started: time.Now(), data: c.Data, say: newProgress(env.out)}
	if c.JSON {
		d.say.out = env.err
	}
	if d.data == "" {
		d.data = rt.path(flights.Sample)
	}
	rt.progress = d.say.training
	running, stop := context.WithCancel(ctx)
	defer stop()
	roles, running := errgroup.WithContext(running)
	roles.Go(func() error { return rt.run(running, allRoles) })
	loopErr := d.loop(running, roles)
	s := d.summary()
	if loopErr != nil {
		s.Missing = append(s.Missing, loopErr.Error())
	}
	if c.JSON {
		defer func() { s.printJSON(env.out) }()
	} else {
		s.print(env.out)
	}
	if loopErr == nil && !c.Exit {
		d.say.line("everything goes on running; Ctrl-C ends it")
		<-running.Done()
	}
	stop()
	if err := roles.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if len(s.Missing) > 0 && ctx.Err() == nil {
		return exitStatus(failure.Refused.ExitCode())
	}
	return nil
}

// place gives the demo a data folder of its own and writes the embedded project there, unless folders are given.
func (c *demoCommand) place() error {
	if c.DataDir == "" {
		dir, err := os.MkdirTemp("", "millrace-demo-")
		if err != nil {
			return failure.Wrap(failure.Unavailable, os.TempDir(), "making the demo's data folder", err)
		}
		c.DataDir = dir
	}
	if c.Project != "" {
		return nil
	}
	c.Project = filepath.Join(c.DataDir, "project")
	return fs.WalkDir(flights.Files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(c.Project, path)
		if entry.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		content, err := flights.Files.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o644)
	})
}

// demo is one run of the loop.
type demo struct {
	rt       *runtime
	model    *project.Model
	data     string
	patience time.Duration
	started  time.Time
	say      *progress

	watch    *watcher
	producer *producer
	requests *requester
	live     schemas.ModelEvent // the model that was live at first
}

// loop takes the steps in order. A step that does not happen within the patience is an error that says which.
func (d *demo) loop(ctx context.Context, background *errgroup.Group) error {
	if len(d.rt.project.Models) == 0 {
		return failure.New(failure.BadProject, d.rt.project.Dir, "the project declares no model")
	}
	d.model = d.rt.project.Models[0]
	d.say.line("Kafka %s, Redis %s, files %s", d.rt.kafka.Brokers[0], d.rt.redisAddr(), d.rt.dataDir)
	var err error
	if d.watch, err = newWatcher(ctx, d.rt); err != nil {
		return err
	}
	background.Go(func() error { return d.watch.run(ctx) })
	if d.producer, err = newProducer(ctx, d.rt); err != nil {
		return err
	}
	defer d.producer.close()
	return d.replay(ctx, background)
}

// replay produces the flights in event-time order: freely until there is enough to train the first model on, and after that
// no further ahead of the predictions than features of the past can be read exactly. It holds its breath while a model is
// being trained, since weeks of event time would pass otherwise.
func (d *demo) replay(ctx context.Context, background *errgroup.Group) error {
	const slice = int64(time.Hour / time.Millisecond)
	var sliceEnd, first, newestDeparture int64
	var due []int64 // of each slice still to be predicted: its last departure
	scoring := false
	for e, err := range flights.Events(flights.Read(ctx, d.data, 0, 0)) {
		if err != nil {
			return err
		}
		if first == 0 {
			first = e.Time
			sliceEnd = first - first%slice + slice
		}
		if e.Time >= sliceEnd {
			sliceEnd = e.Time - e.Time%slice + slice
			if err := d.producer.flush(ctx); err != nil {
				return err
			}
			d.say.progress("%9d events produced, event time %s%s", d.producer.sent, stamp(e.Time), d.counts(scoring))
			if !scoring && e.Time-first > d.model.Train.FirstAfter.Milliseconds()+slice {
				if err := d.firstModel(ctx, background); err != nil {
					return err
				}
				scoring = true
			}
			if scoring {
				due = append(due, newestDeparture)
				if due, err = d.keepPace(ctx, due, e.Time); err != nil {
					return err
				}
			}
		}
		if e.Topic == flights.Departures {
			newestDeparture = e.Time
			if d.requests != nil {
				d.requests.offer(e.Flight)
			}
		}
		if err := d.producer.produce(ctx, e); err != nil {
			return err
		}
	}
	if err := d.producer.flush(ctx); err != nil {
		return err
	}
	if !scoring {
		return failure.New(failure.Refused, d.data, "the flights span less than the %s that the first model needs", d.model.Train.FirstAfter).
			WithHint("give a longer file, or a smaller train.first_after in the project")
	}
	d.say.line("%9d events produced; waiting for the last predictions and verdicts", d.producer.sent)
	return d.settle(ctx, newestDeparture)
}

// firstModel waits until the train role, which sees by itself that there is enough data, has promoted a model and the
// endpoint serves it.
func (d *demo) firstModel(ctx context.Context, background *errgroup.Group) error {
	d.say.line("%9d events produced; the train role has %s of data and trains the first model", d.producer.sent, days(d.model.Train.FirstAfter))
	err := d.wait(ctx, "the first model", func() bool { return len(d.watch.promoted()) > 0 || d.refusedFirst() != nil })
	if err != nil {
		return err
	}
	d.watch.mu.Lock()
	promoted, refused := d.watch.promoted(), d.refusedFirst()
	d.watch.mu.Unlock()
	if len(promoted) == 0 {
		return failure.New(failure.Refused, d.model.Name, "the first model did not pass its gates: %s", refused.Reason)
	}
	d.live = promoted[0]
	d.say.line("model %s@%d promoted: AUC %.3f on held-out flights, %.3f without streaming features",
		d.live.Model, d.live.Version, d.live.Metrics[metricAUC], d.live.Metrics[metricAblation])
	d.requests = newRequester(d.rt.endpoint(), d.model)
	if err := d.requests.awaitDigest(ctx, d.live.Digest, d.patience); err != nil {
		return err
	}
	background.Go(func() error { return d.requests.run(ctx) })
	return nil
}

func (d *demo) refusedFirst() *schemas.ModelEvent {
	for i := range d.watch.models {
		if d.watch.models[i].Kind == schemas.ModelRefused {
			return &d.watch.models[i]
		}
	}
	return nil
}

// keepPace waits until the predictions are near enough, and until no retrain request is open.
func (d *demo) keepPace(ctx context.Context, due []int64, now int64) ([]int64, error) {
	behind := 0
	for behind < len(due) && due[behind] <= now-lead.Milliseconds() {
		behind++
	}
	if behind > 0 {
		need := due[behind-1]
		if err := d.wait(ctx, "the predictions up to "+stamp(need), func() bool { return d.watch.newestAt >= need }); err != nil {
			return nil, err
		}
		due = due[behind:]
	}
	return due, d.decideRetrains(ctx)
}

// decideRetrains waits until every retrain request so far has been answered and what was promoted is served.
func (d *demo) decideRetrains(ctx context.Context) error {
	d.watch.mu.Lock()
	open := d.watch.undecided()
	d.watch.mu.Unlock()
	if len(open) == 0 {
		return nil
	}
	d.say.line("drift confirmed; retrain requested: %s", open[0].Reason)
	if err := d.wait(ctx, "the retrained model", func() bool { return len(d.watch.undecided()) == 0 }); err != nil {
		return err
	}
	d.watch.mu.Lock()
	last := d.watch.models[len(d.watch.models)-1]
	for _, m := range d.watch.models {
		if decided(m) {
			last = m
		}
	}
	d.watch.mu.Unlock()
	if last.Kind == schemas.ModelRefused {
		d.say.line("candidate refused: %s", last.Reason)
		return nil
	}
	d.say.line("model %s@%d promoted: AUC %.3f on newer held-out flights, champion's %.3f on the same", last.Model, last.Version,
		last.Metrics[metricAUC], last.Metrics[metricAUC]-last.Metrics[metricVersus])
	return d.requests.awaitDigest(ctx, last.Digest, d.patience)
}

// settle waits for what the last events cause.
func (d *demo) settle(ctx context.Context, newestDeparture int64) error {
	if err := d.wait(ctx, "the last predictions", func() bool { return d.watch.newestAt >= newestDeparture }); err != nil {
		return err
	}
	return d.decideRetrains(ctx)
}

// wait gives a step the demo's patience.
func (d *demo) wait(ctx context.Context, step string, ok func() bool) error {
	limited, cancel := context.WithTimeoutCause(ctx, d.patience,
		failure.New(failure.Deadline, "", "%s did not come within %s", step, d.patience).
			WithHint("look at %s/console, or run again with --verbose", d.rt.endpoint()))
	defer cancel()
	return d.watch.await(limited, ok)
}

// counts is the middle of a progress line.
func (d *demo) counts(scoring bool) string {
	if !scoring {
		return ""
	}
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	return fmt.Sprintf(", %d predictions, %d windows judged", d.watch.predictions, d.watch.windows)
}

func days(d time.Duration) string { return fmt.Sprintf("%.0f days", d.Hours()/24) }
