package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// statusCommand prints where everything stands.
type statusCommand struct {
	servers `embed:""`
}

func (c *statusCommand) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true, redis: len(c.Redis) > 0})
	if err != nil {
		return err
	}
	defer rt.close()
	client, err := rt.kafkaClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListGroups(ctx)
	if err != nil {
		return failure.Wrap(failure.Unavailable, "Kafka", "listing consumer groups", err)
	}
	groups := slices.DeleteFunc(listed.Groups(), func(g string) bool { return !strings.HasPrefix(g, rt.project.Name+".") })
	w := tabwriter.NewWriter(env.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STAGE\tTOPIC\tPARTITION\tNEXT\tEND\tLAG")
	if len(groups) > 0 {
		lags, err := streams.Lag(ctx, client, groups...)
		if err != nil {
			return err
		}
		for _, g := range lags {
			for _, l := range g.Partitions {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\n", g.Group, l.Topic, l.Partition, l.Next, l.End, l.Lag)
			}
		}
	}
	fmt.Fprintln(w, "\nMODEL\tCHAMPION\tVERSION\tVERSIONS")
	for _, m := range rt.project.Models {
		versions, err := rt.registry.Versions(m.Name)
		if err != nil {
			return err
		}
		digest, number, err := rt.registry.Alias(m.Name, registry.Champion)
		if err != nil && failure.Of(err) != failure.NotFound {
			return err
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", m.Name, digest, number, len(versions))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := rt.printBatches(env.out, clock.System()); err != nil || rt.redis == nil {
		return err
	}
	return rt.printVersions(ctx, env.out)
}

// stored is the flags of the verbs that read only the registry.
type stored struct {
	folder  `embed:""`
	DataDir string `help:"Data folder of the project (default: .millrace in the project)." env:"MILLRACE_DATA_DIR" type:"path" placeholder:"DIR"`
}

func (s stored) registry() (*registry.Registry, error) {
	dir := s.DataDir
	if dir == "" { // with the flag, the project need not be there
		p, err := s.load()
		if err != nil {
			return nil, err
		}
		dir = dataDir(p, "")
	}
	return openRegistry(dir)
}

// namedVersion is a version of one of the project's models.
type namedVersion struct {
	project   *project.Project
	registry  *registry.Registry
	reference registry.Reference
	model     *project.Model
}

// version finds what a reference to a version names.
func (s stored) version(reference string) (n namedVersion, err error) {
	if n.project, err = s.load(); err != nil {
		return n, err
	}
	if n.registry, err = openRegistry(dataDir(n.project, s.DataDir)); err != nil {
		return n, err
	}
	if n.reference, err = n.registry.Resolve(reference); err != nil {
		return n, err
	}
	n.model, err = modelNamed(n.project, n.reference.Model)
	return n, err
}

// openRegistry opens the registry of a data folder; what is done there is kept as this user's, on this machine.
func openRegistry(dataDir string) (*registry.Registry, error) {
	return registry.Open(filepath.Join(dataDir, "registry"), registry.WithActor(actor()))
}

// actor is USER@HOST, as far as the system tells.
func actor() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// lineageCommand walks the lineage both ways.
type lineageCommand struct {
	stored `embed:""`
	Digest string `arg:"" help:"Digest of an artefact, a beginning of it, MODEL@N, or MODEL for a model's champion."`
}

func (c *lineageCommand) Run(env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	digest, err := artefactNamed(r, c.Digest)
	if err != nil {
		return err
	}
	ups, downs, err := r.Lineage(digest)
	if err != nil {
		return err
	}
	fmt.Fprintln(env.out, "made of")
	printTree(env.out, ups, 1)
	if len(downs.Next) > 0 {
		fmt.Fprintln(env.out, "used in")
		for _, n := range downs.Next {
			printTree(env.out, n, 1)
		}
	}
	return nil
}

// artefactNamed finds an artefact by a version of a model or by the beginning of its digest.
func artefactNamed(r *registry.Registry, text string) (string, error) {
	v, err := r.Resolve(text)
	if err == nil {
		return v.Digest, nil
	}
	if strings.Contains(text, "@") {
		return "", err
	}
	return r.Find(text)
}

func printTree(out io.Writer, n *registry.Node, depth int) {
	m := n.Manifest
	fmt.Fprintf(out, "%s%s %s", strings.Repeat("  ", depth), m.Kind, n.Digest)
	if n.Role != "" {
		fmt.Fprintf(out, " as %s", n.Role)
	}
	if m.Rows > 0 {
		fmt.Fprintf(out, ", %d rows", m.Rows)
	}
	if m.Code != "" {
		fmt.Fprintf(out, ", code %s", m.Code)
	}
	fmt.Fprintln(out)
	for _, next := range n.Next {
		printTree(out, next, depth+1)
	}
}

// tailCommand prints one of the project's own topics.
type tailCommand struct {
	servers `embed:""`
	Topic   string `arg:"" enum:"predictions,shadows,drift,retrain,models" help:"predictions, shadows, drift, retrain or models."`
	Follow  bool   `short:"f" help:"Go on with what comes, instead of ending where the topic ends now."`
}

func (c *tailCommand) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	topic, decode := rt.own.Predictions.Name, func(b []byte) (any, error) { return schemas.UnmarshalPrediction(b) }
	switch c.Topic {
	case "shadows":
		topic = rt.own.Shadows.Name
	case "drift":
		topic, decode = rt.own.Drift.Name, func(b []byte) (any, error) { return schemas.UnmarshalDrift(b) }
	case "retrain":
		topic, decode = rt.own.Retrain.Name, func(b []byte) (any, error) { return schemas.UnmarshalRetrain(b) }
	case "models":
		topic, decode = rt.own.Models.Name, func(b []byte) (any, error) { return schemas.UnmarshalModelEvent(b) }
	}
	enc := json.NewEncoder(env.out)
	return rt.read(ctx, topic, c.Follow, func(r *kgo.Record) error {
		event, err := decode(r.Value)
		if err != nil {
			return fmt.Errorf("%s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		return enc.Encode(event)
	})
}

// read hands out a topic's records from its beginning to its end as of now, or for ever.
func (rt *runtime) read(ctx context.Context, topic string, follow bool, fn func(*kgo.Record) error) error {
	_, err := streams.Read(ctx, rt.kafka, streams.ReadOptions{Topic: topic, Follow: follow}, fn)
	return err
}

// deadLettersCommand lists refused records, or gives them another chance.
type deadLettersCommand struct {
	List   deadLettersList   `cmd:"" help:"List them, oldest first."`
	Replay deadLettersReplay `cmd:"" help:"Produce the original records to their topics again, after the cause has been mended."`
}

type deadLettersList struct {
	servers `embed:""`
	JSON    bool `name:"json" help:"Print JSON lines, with the original bytes in base64."`
}

func (c *deadLettersList) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	enc := json.NewEncoder(env.out)
	return rt.read(ctx, rt.own.DeadLetters.Name, false, func(r *kgo.Record) error {
		d, err := streams.ParseDeadLetter(r)
		if err != nil {
			return err
		}
		if c.JSON {
			return enc.Encode(d)
		}
		fmt.Fprintf(env.out, "%s/%d/%d  %s  %s: %s\n", d.Topic, d.Partition, d.Offset, d.Stage, d.Class, d.Reason)
		return nil
	})
}

type deadLettersReplay struct {
	servers `embed:""`
	Class   []string `help:"Only those of these classes." placeholder:"CLASS"`
	Topic   []string `help:"Only those of these topics." placeholder:"TOPIC"`
}

func (c *deadLettersReplay) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	client, err := rt.kafkaClient(ctx, kgo.ProducerBatchMaxBytes(streams.LargestRecord))
	if err != nil {
		return err
	}
	defer client.Close()
	n := 0
	err = rt.read(ctx, rt.own.DeadLetters.Name, false, func(r *kgo.Record) error {
		d, err := streams.ParseDeadLetter(r)
		if err != nil {
			return err
		}
		if len(c.Class) > 0 && !slices.Contains(c.Class, d.Class) || len(c.Topic) > 0 && !slices.Contains(c.Topic, d.Topic) {
			return nil
		}
		again := &kgo.Record{Topic: d.Topic, Key: d.Key, Value: d.Value, Timestamp: time.UnixMilli(d.Timestamp)}
		if err := client.ProduceSync(ctx, again).FirstErr(); err != nil {
			return failure.Wrap(failure.Unavailable, d.Topic, "producing the record again", err)
		}
		n++
		return nil
	})
	fmt.Fprintf(env.out, "%d records produced again\n", n)
	return err
}

// exportCommand writes an offline table as Parquet.
type exportCommand struct {
	stored `embed:""`
	Table  string    `arg:"" help:"events/SOURCE or features/GROUP."`
	Out    string    `arg:"" help:"Parquet file to write." type:"path"`
	From   time.Time `help:"First event time, RFC 3339."`
	Until  time.Time `help:"Event time to stop before, RFC 3339."`
}

func (c *exportCommand) Run(ctx context.Context, env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	root := filepath.Join(dataDir(p, c.DataDir), "offline")
	kind, name, _ := strings.Cut(c.Table, "/")
	var table *offline.Table
	switch {
	case kind == "events" && p.Source(name) != nil:
		table, err = offline.EventsTable(root, name, p.Source(name).Schema)
	case kind == "features" && p.Group(name) != nil:
		table, err = offline.FeaturesTable(root, p.Group(name).Group)
	default:
		return failure.New(failure.NotFound, c.Table, "there is no such table").WithHint("name events/SOURCE or features/GROUP of the project")
	}
	if err != nil {
		return err
	}
	if err := offline.ExportParquet(ctx, table, offline.ScanOptions{From: millis(c.From), Until: millis(c.Until)}, c.Out); err != nil {
		return err
	}
	fmt.Fprintln(env.out, c.Out)
	return nil
}
