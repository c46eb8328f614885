package main

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/oci"
)

// place is the flags of the verbs that copy a version to or from somewhere.
type place struct {
	PlainHTTP   bool          `name:"plain-http" help:"Reach the registry without TLS; one on this machine always is."`
	Timeout     time.Duration `default:"1m" help:"How long the registry may take to begin an answer."`
	WithDataset bool          `help:"With the rows that it was trained on."`
}

func (p place) options() oci.Options { return oci.Options{PlainHTTP: p.PlainHTTP, Timeout: p.Timeout} }

// modelsPush copies a version to an OCI registry.
type modelsPush struct {
	stored  `embed:""`
	place   `embed:""`
	Version string `arg:"" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`
	To      string `arg:"" help:"HOST/NAME[:TAG], or oci:DIR[:TAG] for a folder." placeholder:"REF"`
}

func (c *modelsPush) Run(ctx context.Context, env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	v, err := r.Resolve(c.Version)
	if err != nil {
		return err
	}
	to, err := oci.Open(ctx, c.To, true, c.options())
	if err != nil {
		return err
	}
	digest, err := oci.Push(ctx, r, v, to, c.WithDataset)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s is at %s, manifest %s\n", v, to, digest)
	return nil
}

// modelsPull copies a version from an OCI registry.
type modelsPull struct {
	stored `embed:""`
	place  `embed:""`
	From   string `arg:"" help:"HOST/NAME:TAG, or oci:DIR:TAG for a folder." placeholder:"REF"`
}

func (c *modelsPull) Run(ctx context.Context, env *environment) error {
	r, err := c.registry()
	if err != nil {
		return err
	}
	from, err := oci.Open(ctx, c.From, false, c.options())
	if err != nil {
		return err
	}
	pulled, err := oci.Pull(ctx, r, from, c.WithDataset)
	if err != nil {
		return err
	}
	_, bundle, err := readBundle(r, pulled.Digest)
	if err != nil {
		return err
	}
	checked, err := bundle.Check()
	if err != nil {
		return fmt.Errorf("checking what was pulled: %w", err)
	}
	p, err := c.load()
	if err != nil && failure.Of(err) != failure.NotFound { // a registry may be filled where there is no project
		return err
	}
	if err == nil {
		if m, err := modelNamed(p, pulled.Model); err == nil {
			if err := checkTask(m, checked.Task(), c.From); err != nil {
				return err
			}
		}
	}
	number, err := r.AddVersion(pulled.Model, pulled.Digest)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s@%d %s\n", pulled.Model, number, pulled.Digest)
	return nil
}
