package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training"
)

// mover is what the verbs that move an alias share. With Kafka given, the models topic is told at once; without, serving finds out at its
// next look into the registry, and the topic is told when a trainer starts.
type mover struct {
	servers `embed:""`
	Alias   string `default:"champion" help:"Alias to move: champion, challenger, shadow, or another name." placeholder:"NAME"`
	Expect  *int   `help:"Move only if the alias is at this version now; 0: at none. Default: what it is at when the command looks." placeholder:"N"`
	Reason  string `help:"Why; the history keeps it." placeholder:"TEXT"`
}

// with opens what the verb needs and hands it the registry; told is nil without Kafka.
func (c *mover) with(ctx context.Context, env *environment, fn func(r *registry.Registry, told func(run string, e schemas.ModelEvent) error) error) error {
	if len(c.Kafka) == 0 {
		r, err := stored{c.folder, c.DataDir}.registry()
		if err != nil {
			return err
		}
		return fn(r, nil)
	}
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	client, err := rt.kafkaClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return fn(rt.registry, func(run string, e schemas.ModelEvent) error {
		return training.Publish(ctx, client, rt.own.Models.Name, rt.registry, run, e)
	})
}

// expected is the digest that the alias must be at.
func (c *mover) expected(r *registry.Registry, name string) (string, error) {
	if c.Expect == nil {
		digest, _, err := r.Alias(name, c.Alias)
		if err != nil && failure.Of(err) != failure.NotFound {
			return "", err
		}
		return digest, nil
	}
	if *c.Expect == 0 {
		return "", nil
	}
	v, err := r.Resolve(fmt.Sprintf("%s@%d", name, *c.Expect))
	return v.Digest, err
}

// move concludes what a person decided, as a training run is concluded, so that the event of it is not lost: the alias and the event are one
// write, and who starts next publishes what was not.
func (c *mover) move(ctx context.Context, env *environment, r *registry.Registry, told func(string, schemas.ModelEvent) error, to registry.Reference, kind string, manifest registry.Manifest) error {
	expected, err := c.expected(r, to.Model)
	if err != nil {
		return err
	}
	if expected == to.Digest && kind == schemas.ModelPromoted {
		fmt.Fprintf(env.out, "%s is %s already\n", c.Alias, to)
		return nil
	}
	if c.Alias != registry.Champion { // who answers stays: nobody but the registry needs to know
		if kind == schemas.ModelRolledBack {
			_, err = r.Rollback(ctx, to.Model, c.Alias, expected, c.Reason)
		} else {
			err = r.SetAlias(ctx, to.Model, c.Alias, to.Digest, expected, c.Reason)
		}
		if err == nil {
			fmt.Fprintf(env.out, "%s is %s now\n", c.Alias, to)
		}
		return err
	}
	run := "by-hand-" + rand.Text()
	event := schemas.ModelEvent{
		ID: to.Model + "/" + run, Model: to.Model, Kind: kind, Version: to.Number, Digest: to.Digest, Previous: expected, Reason: c.Reason,
		Metrics: map[string]float64{}, DataFrom: dataBound(manifest, "data_from"), DataUntil: dataBound(manifest, "data_until"), At: time.Now().UnixMilli(),
	}
	if digest, ok := manifest.Input(registry.KindMetrics); ok {
		if err := readJSON(r, digest, &event.Metrics); err != nil {
			return err
		}
	}
	outcome, err := json.Marshal(event)
	if err != nil {
		return failure.Wrap(failure.Internal, to.Model, "encoding model event", err)
	}
	err = r.Conclude(ctx, to.Model, registry.Conclusion{
		Run: run, Outcome: outcome, Note: c.Reason, Digest: to.Digest, Alias: c.Alias, Expected: expected, Back: kind == schemas.ModelRolledBack,
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s is %s now\n", c.Alias, to)
	if told == nil {
		return nil
	}
	return told(run, event)
}

// dataBound reads an annotation that is an instant; 0 where there is none.
func dataBound(m registry.Manifest, name string) int64 {
	t, err := time.Parse(time.RFC3339, m.Annotations[name])
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}

// modelsPromote moves an alias forward.
type modelsPromote struct {
	mover   `embed:""`
	Version string `arg:"" help:"MODEL@N, or MODEL@ALIAS."`
}

func (c *modelsPromote) Run(ctx context.Context, env *environment) error {
	return c.with(ctx, env, func(r *registry.Registry, told func(string, schemas.ModelEvent) error) error {
		to, err := r.Resolve(c.Version)
		if err != nil {
			return err
		}
		manifest, bundle, err := readBundle(r, to.Digest)
		if err != nil {
			return err
		}
		if _, err := bundle.Check(); err != nil {
			return fmt.Errorf("checking %s: %w", to, err)
		}
		return c.move(ctx, env, r, told, to, schemas.ModelPromoted, manifest)
	})
}

// modelsRollback moves an alias back.
type modelsRollback struct {
	mover `embed:""`
	Model string `arg:"" help:"The model."`
}

func (c *modelsRollback) Run(ctx context.Context, env *environment) error {
	return c.with(ctx, env, func(r *registry.Registry, told func(string, schemas.ModelEvent) error) error {
		if _, err := r.Resolve(c.Model + "@1"); err != nil {
			return err
		}
		_, version, err := r.Before(c.Model, c.Alias)
		if err != nil {
			return err
		}
		to, err := r.Resolve(fmt.Sprintf("%s@%d", c.Model, version))
		if err != nil {
			return err
		}
		manifest, err := r.Manifest(to.Digest)
		if err != nil {
			return err
		}
		return c.move(ctx, env, r, told, to, schemas.ModelRolledBack, manifest)
	})
}
