package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training"
)

// trainCommand is the train role, or one run of it.
type trainCommand struct {
	servers   `embed:""`
	edgeFlags `embed:""`
	Once      bool      `help:"Train now, on the offline files there are, and end: status 0 when the model is promoted, 77 when it is refused."`
	Model     string    `help:"With --once: the model (default: the project's only one)." placeholder:"NAME"`
	Until     time.Time `help:"With --once: use data before this event time only, RFC 3339."`
}

func (c *trainCommand) Run(ctx context.Context, env *environment) error {
	if !c.Once {
		return c.runRoles(ctx, env, opening{kafka: true, redis: true, edge: c.edgeFlags}, "train", []role{roleTrain})
	}
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	if err := rt.ensureTopics(ctx); err != nil {
		return err
	}
	name := c.Model
	if name == "" {
		if len(rt.project.Models) != 1 {
			return failure.New(failure.BadRequest, "--model", "the project has %d models", len(rt.project.Models)).WithHint("name one")
		}
		name = rt.project.Models[0].Name
	}
	s, err := rt.training(rt.log)
	if err != nil {
		return err
	}
	defer s.Close()
	event, err := s.TrainOnce(ctx, name, millis(c.Until), "asked for by hand")
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s %s@%d %s\n", event.Kind, event.Model, event.Version, event.Digest)
	for _, metric := range slices.Sorted(maps.Keys(event.Metrics)) {
		fmt.Fprintf(env.out, "  %-28s %.6g\n", metric, event.Metrics[metric])
	}
	if event.Kind == schemas.ModelRefused {
		return failure.New(failure.Refused, name, "%s", event.Reason)
	}
	return nil
}

// training makes the train stage.
func (rt *runtime) training(log *slog.Logger) (*training.Stage, error) {
	cfg := training.Default()
	cfg.Code = version()
	return training.New(cfg, training.Deps{
		Project: rt.project, Kafka: rt.kafka, Registry: rt.registry, OfflineDir: rt.offlineDir(),
		Clock: clock.System, Log: log, Registerer: rt.registerer, Progress: rt.progress,
	})
}
