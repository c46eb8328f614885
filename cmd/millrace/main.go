// Command millrace turns Kafka topics into windowed features, scores with them, watches what it scores, and retrains.
//
// This folder is wiring only: one short file for each verb or role. What the roles do is in the packages of the same name.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/millrace/millrace/internal/failure"
)

// commands are the verbs, in the order in which a new user meets them.
type commands struct {
	Demo demoCommand `cmd:"" help:"The whole loop on real flights: topic, features, model, score, drift, retrained model."`
	Up   upCommand   `cmd:"" help:"All roles in one process, on an embedded Kafka and Redis unless addresses are given."`

	Stream  streamCommand  `cmd:"" group:"Roles" help:"Role: computes features from topics into Redis and Arrow files."`
	Serve   serveCommand   `cmd:"" group:"Roles" help:"Role: scores requests and events with the live model."`
	Monitor monitorCommand `cmd:"" group:"Roles" help:"Role: compares what is scored to the model's baseline; emits drift and retrain events."`
	Train   trainCommand   `cmd:"" group:"Roles" help:"Role: trains, evaluates and gates candidates when a retrain event comes (--once: now)."`
	Batch   batchCommand   `cmd:"" group:"Roles" help:"Role: scores the project's scheduled batches; needs neither Kafka nor Redis (--once: one run, now)."`
	Console consoleCommand `cmd:"" group:"Roles" help:"Role: the page that shows the state of every stage."`

	Validate validateCommand `cmd:"" group:"Project" help:"Check a project folder; prints every fault with file, line and column."`
	Plan     planCommand     `cmd:"" group:"Project" help:"Print what applying the project would change; exits with 2 on what would break a consumer."`
	Apply    applyCommand    `cmd:"" group:"Project" help:"Create the project's topics and record what is applied."`
	Backfill backfillCommand `cmd:"" group:"Project" help:"Compute a feature group anew from its history, beside the state that is read; readers are moved when it has caught up."`
	Test     testCommand     `cmd:"" group:"Project" help:"Run the project's feature tests: events in, expected features out; needs no servers."`
	Topics   topicsCommand   `cmd:"" group:"Project" help:"Print the topics of the project: who writes and reads each, and its schema."`

	Tokens tokensCommand `cmd:"" group:"Roles" help:"Bearer tokens of the endpoints."`

	Status      statusCommand      `cmd:"" group:"Looking" help:"Positions, lag and models as they are now; with Redis given, the versions of the feature groups."`
	Models      modelsCommand      `cmd:"" group:"Looking" help:"Versions of the project's models: list, show, promote, rollback, diff, export, import, push, pull."`
	Lineage     lineageCommand     `cmd:"" group:"Looking" help:"What an artefact was made from, and what was made from it."`
	Tail        tailCommand        `cmd:"" group:"Looking" help:"Print a topic's events as JSON lines."`
	Inspect     inspectCommand     `cmd:"" group:"Looking" help:"The state of one entity: values, windows with their spans, tiles, position."`
	Explain     explainCommand     `cmd:"" group:"Looking" help:"What a feature is: definition, source, error, where it is kept, which models use it, lineage. Or what a prediction was made of: events, features computed again, model."`
	Consistency consistencyCommand `cmd:"" group:"Looking" help:"Compute a sample of what was served again, from the offline events at the very positions, and compare."`
	DeadLetters deadLettersCommand `cmd:"" group:"Looking" help:"List or replay the records that were refused."`
	Dataset     datasetCommand     `cmd:"" group:"Looking" help:"Make a training set: rows from a file, a query or a source, joined with features as they were known then."`
	Bundle      bundleCommand      `cmd:"" group:"Looking" help:"Make a folder that scores without servers: program, project and one version of a model, for an edge box."`
	Score       scoreCommand       `cmd:"" group:"Looking" help:"Score rows of files or of the offline log, with features as they were known then; needs no servers."`
	Export      exportCommand      `cmd:"" group:"Looking" help:"Write offline events or features as a Parquet file."`
	Replay      replayCommand      `cmd:"" group:"Looking" help:"Produce real flights to the example's topics, as the demo does."`

	Version kong.VersionFlag `help:"Print the version."`
	Verbose bool             `short:"v" help:"Log what is done, not only what needs attention."`
	Profile string           `help:"Write a CPU profile of the whole run to this file, for go tool pprof." type:"path" placeholder:"FILE"`
}

func main() {
	collectAt(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is main with its surroundings as arguments; it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var c commands
	exit := -1
	parser, err := kong.New(&c,
		kong.Name("millrace"),
		kong.Description("Kafka topics into correct windowed features, scored in real time, watched, retrained, explained."),
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.Vars{"version": version()},
	)
	if err != nil {
		fmt.Fprintln(stderr, "millrace:", err)
		return failure.Internal.ExitCode()
	}
	k, err := parser.Parse(args)
	if exit >= 0 { // --help and --version have been answered
		return exit
	}
	if err != nil {
		fmt.Fprintf(stderr, "millrace: %v\nSee millrace --help.\n", err)
		return failure.BadRequest.ExitCode()
	}
	level := slog.LevelWarn
	if c.Verbose {
		level = slog.LevelInfo
	}
	env := &environment{
		in: os.Stdin, out: stdout, err: stderr,
		log: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
	}
	k.BindTo(ctx, (*context.Context)(nil))
	stop, err := profile(c.Profile)
	if err != nil {
		fmt.Fprintln(stderr, "millrace:", err)
		return failure.Of(err).ExitCode()
	}
	defer stop()
	if err := k.Run(env); err != nil {
		var status exitStatus
		if errors.As(err, &status) {
			return int(status)
		}
		fmt.Fprintln(stderr, "millrace:", err)
		return failure.Of(err).ExitCode()
	}
	return 0
}

// profile starts a CPU profile, unless the file has no name.
func profile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, file, "writing a CPU profile", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, failure.Wrap(failure.Internal, file, "starting a CPU profile", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// environment is what every verb is given: where to read and print, and the one logger.
type environment struct {
	in       io.Reader
	out, err io.Writer
	log      *slog.Logger
}

// exitStatus ends the program with a status when everything there is to say has been printed.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// version is the module's version and commit, as the Go toolchain recorded them.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v
}
