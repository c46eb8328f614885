package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// Serving finds out about these at its next look into the registry, within a second.

// trial is a version that is to be tried beside the champion, and for how many of the entities.
type trial struct {
	stored  `embed:""`
	Version string `arg:"" help:"MODEL@N, or MODEL@ALIAS."`
	Percent string `arg:"" optional:"" help:"Percentage of the entities, like 5%; a shadow's is 100% where none is said. An entity stays in a percentage that grows."`
	Reason  string `help:"Why; the history keeps it." placeholder:"TEXT"`
}

// set moves an alias to the version. Unless somebody moves the alias meanwhile, it is as of what the command saw.
func (c *trial) set(ctx context.Context, env *environment, alias string) error {
	number, err := strconv.ParseFloat(strings.TrimSuffix(c.Percent, "%"), 64)
	if err != nil {
		return failure.New(failure.BadRequest, c.Percent, "is no percentage").WithHint("write it like 5%%")
	}
	r, err := c.registry()
	if err != nil {
		return err
	}
	to, err := r.Resolve(c.Version)
	if err != nil {
		return err
	}
	_, bundle, err := readBundle(r, to.Digest)
	if err != nil {
		return err
	}
	if _, err := bundle.Check(); err != nil {
		return fmt.Errorf("checking %s: %w", to, err)
	}
	champion, _, err := r.Alias(to.Model, registry.Champion)
	if err != nil {
		return err
	}
	if champion == to.Digest {
		return failure.New(failure.Refused, to.String(), "it is the champion already")
	}
	now, _, err := r.Alias(to.Model, alias)
	if err != nil && failure.Of(err) != failure.NotFound {
		return err
	}
	if err := r.SetArm(ctx, to.Model, alias, to.Digest, number, now, c.Reason); err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s is %s now, for %s of the entities\n", alias, to, percent(number))
	return nil
}

// percent is a percentage as it is written; empty for none.
func percent(p float64) string {
	if p == 0 {
		return ""
	}
	return strconv.FormatFloat(p, 'g', -1, 64) + "%"
}

// modelsCanary makes a version the challenger.
type modelsCanary struct {
	trial `embed:""`
}

func (c *modelsCanary) Run(ctx context.Context, env *environment) error {
	if c.Percent == "" {
		return failure.New(failure.BadRequest, "percent", "say for how many of the entities the challenger is to answer").WithHint("like millrace models canary %s 5%%", c.Version)
	}
	return c.set(ctx, env, registry.Challenger)
}

// modelsShadow makes a version the shadow.
type modelsShadow struct {
	trial `embed:""`
}

func (c *modelsShadow) Run(ctx context.Context, env *environment) error {
	if c.Percent == "" {
		c.Percent = "100%"
	}
	return c.set(ctx, env, registry.Shadow)
}

// modelsEnd ends a trial.
type modelsEnd struct {
	stored `embed:""`
	Model  string `arg:"" help:"The model."`
	Alias  string `arg:"" enum:"challenger,shadow" help:"challenger or shadow."`
	Reason string `help:"Why; the history keeps it." placeholder:"TEXT"`
}

func (c *modelsEnd) Run(ctx context.Context, env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	now, _, err := r.Alias(c.Model, c.Alias)
	if err != nil {
		return err
	}
	if err := r.EndAlias(ctx, c.Model, c.Alias, now, c.Reason); err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s has no %s now\n", c.Model, c.Alias)
	return nil
}
