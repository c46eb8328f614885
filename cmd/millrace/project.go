package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// stateFile is the file in the data folder that says what was applied last.
const stateFile = "applied.json"

// validateCommand checks a project.
type validateCommand struct {
	folder `embed:""`
}

func (c *validateCommand) Run(env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	outputs := 0
	for _, g := range p.Groups {
		outputs += len(g.Outputs)
	}
	batches := ""
	if n := len(p.Batches); n > 0 {
		batches = ", " + counted(n, "batch", "batches")
	}
	fmt.Fprintf(env.out, "%s is right: %s, %s with %s, %s%s\n", p.Name, counted(len(p.Sources), "source", "sources"), counted(len(p.Groups), "feature group", "feature groups"),
		counted(outputs, "feature", "features"), counted(len(p.Models), "model", "models"), batches)
	return nil
}

// counted is a number with its noun.
func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", more)
}

// planCommand tells what would change.
type planCommand struct {
	folder  `embed:""`
	DataDir string `help:"Data folder of the project (default: .millrace in the project)." env:"MILLRACE_DATA_DIR" type:"path" placeholder:"DIR"`
}

func (c *planCommand) Run(env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	dir := dataDir(p, c.DataDir)
	changes, err := planned(p, dir)
	if err != nil {
		return err
	}
	printChanges(env, changes)
	if err := printRebuilt(env, p, changes, filepath.Join(dir, "offline")); err != nil {
		return err
	}
	if changes.Breaking() {
		return exitStatus(2)
	}
	return nil
}

// planned compares the project with what was applied last in a data folder.
func planned(p *project.Project, dataDir string) (project.Changes, error) {
	var previous project.State
	path := filepath.Join(dataDir, stateFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return project.Plan(p, previous), nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, path, "reading what was applied", err)
	}
	if err := json.Unmarshal(text, &previous); err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "reading what was applied", err).WithHint("remove the file to plan from nothing")
	}
	return project.Plan(p, previous), nil
}

func printChanges(env *environment, changes project.Changes) {
	if len(changes) == 0 {
		fmt.Fprintln(env.out, "nothing to change")
		return
	}
	w := tabwriter.NewWriter(env.out, 0, 0, 2, ' ', 0)
	for _, c := range changes {
		mark := ""
		if c.Breaking {
			mark = "BREAKING"
		}
		fmt.Fprintf(w, "%s\t%s %s\t%s\t%s\n", c.Kind, c.Object, c.Name, c.What, mark)
		if c.Hint != "" {
			fmt.Fprintf(w, "\t\t%s\t\n", c.Hint)
		}
	}
	_ = w.Flush()
}

// applyCommand creates topics and records the project as applied. With Redis given, it makes changed groups the targets of theirs; else the
// stream role does when it starts.
type applyCommand struct {
	servers `embed:""`
	Break   bool `help:"Apply also what would break a consumer."`
}

func (c *applyCommand) Run(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true, redis: len(c.Redis) > 0})
	if err != nil {
		return err
	}
	defer rt.close()
	changes, err := planned(rt.project, rt.dataDir)
	if err != nil {
		return err
	}
	printChanges(env, changes)
	if changes.Breaking() && !c.Break {
		fmt.Fprintln(env.err, "nothing applied: a consumer would break; --break applies it all the same")
		return exitStatus(2)
	}
	if err := printRebuilt(env, rt.project, changes, rt.offlineDir()); err != nil {
		return err
	}
	if err := rt.ensureTopics(ctx); err != nil {
		return err
	}
	if rt.redis != nil {
		if err := rt.declareVersions(ctx); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(rt.project.State(), "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(rt.dataDir, stateFile)
	if err := os.WriteFile(path+".tmp", append(text, '\n'), 0o644); err != nil {
		return failure.Wrap(failure.Unavailable, path, "recording what is applied", err)
	}
	return os.Rename(path+".tmp", path)
}

// topicsCommand prints the topology.
type topicsCommand struct {
	folder `embed:""`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (c *topicsCommand) Run(env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	topics := p.Topology()
	if c.JSON {
		enc := json.NewEncoder(env.out)
		enc.SetIndent("", "  ")
		return enc.Encode(topics)
	}
	w := tabwriter.NewWriter(env.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITIONS\tKEPT\tKEY\tVALUE\tWRITTEN BY\tREAD BY\tPURPOSE")
	for _, t := range topics {
		kept := "for ever"
		if t.Compact {
			kept = "newest of a key"
		} else if t.Retention > 0 {
			kept = days(t.Retention)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Partitions, kept, t.Key, t.Value,
			strings.Join(t.Producers, ", "), strings.Join(t.Consumers, ", "), t.Purpose)
	}
	return w.Flush()
}
