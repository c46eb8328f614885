package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// inspectCommand shows the state of one entity.
type inspectCommand struct {
	servers `embed:""`
	Group   string    `arg:"" help:"Feature group."`
	Entity  []string  `arg:"" help:"The entity: a value for each of the group's entity columns, in their order."`
	At      time.Time `help:"Resolve windows as of this event time, RFC 3339 (default: now by the project's clock)."`
	Tiles   bool      `help:"List every tile."`
	JSON    bool      `name:"json" help:"Print JSON, tiles included."`
}

func (c *inspectCommand) Run(ctx context.Context, env *environment) error {
	p, err := c.load()
	if err != nil {
		return err
	}
	g, err := groupNamed(p, c.Group)
	if err != nil {
		return err
	}
	key, err := entityNamed(g, c.Entity)
	if err != nil {
		return err
	}
	rt, err := c.open(ctx, env, opening{redis: true})
	if err != nil {
		return err
	}
	defer rt.close()
	i, err := online.Inspect(ctx, rt.redis, p.Name, g.Group, key)
	if err != nil {
		return err
	}
	v := inspect(g, c.Entity, i, asOf(p, i, c.At))
	if c.JSON {
		err = json.NewEncoder(env.out).Encode(v)
	} else {
		err = v.print(env.out, c.Tiles)
	}
	if err == nil && i.Entity == nil {
		if i.Rebuilding {
			return failure.New(failure.Unavailable, g.Name, "partition %d, which events of %s would be in, is being computed from its history", i.Partition, strings.Join(c.Entity, ", ")).
				WithHint("the stream role must be running; look again when it has come to where it was")
		}
		return failure.New(failure.NotFound, g.Name, "nothing is known of %s", strings.Join(c.Entity, ", ")).
			WithHint("its events would be in partition %d, which has applied all before offset %d", i.Partition, i.Position.Next)
	}
	return err
}

// groupNamed is a feature group of the project.
func groupNamed(p *project.Project, name string) (*project.Group, error) {
	if g := p.Group(name); g != nil {
		return g, nil
	}
	names := make([]string, len(p.Groups))
	for i, g := range p.Groups {
		names[i] = g.Name
	}
	return nil, unknownName("feature group", name, names)
}

// unknownName is NotFound with the nearest name, or all of them.
func unknownName(what, name string, names []string) error {
	err := failure.New(failure.NotFound, name, "there is no such %s", what)
	if near := schemas.Nearest(name, names); near != "" {
		return err.WithHint("did you mean %s?", near)
	}
	return err.WithHint("the project has %s", strings.Join(names, ", "))
}

// entityNamed is the key of an entity whose columns have these values.
func entityNamed(g *project.Group, values []string) (string, error) {
	if len(values) != len(g.Entity) {
		return "", failure.New(failure.BadRequest, g.Name, "%d values name the entity, which has %d: %s", len(values), len(g.Entity), strings.Join(g.Entity, ", "))
	}
	named := map[string]string{}
	for i, column := range g.Entity {
		named[column] = values[i]
	}
	return g.KeyOf(named)
}

// asOf is the time that was asked for, or now by the project's clock: just after the newest event of the group under clock: event.
func asOf(p *project.Project, i *online.Inspection, asked time.Time) int64 {
	switch {
	case !asked.IsZero():
		return asked.UnixMilli()
	case p.Clock != project.ClockEvent:
		return clock.System().UnixMilli()
	default:
		return i.Newest + 1
	}
}

// inspection is what inspect shows. Times are RFC 3339, null where there is none.
type inspection struct {
	Group    string            `json:"group"`
	Version  string            `json:"version"`
	Entity   map[string]string `json:"entity"`
	At       string            `json:"at"`
	Newest   *string           `json:"newest_event"` // of the entity
	Redis    redisView         `json:"redis"`
	Position positionView      `json:"position"`
	Outputs  []outputView      `json:"outputs"`
	Tiles    []tileView        `json:"tiles"`
}

type redisView struct {
	Key   string  `json:"key"`
	Hash  string  `json:"hash,omitempty"` // key of the values, of a materialized group
	Bytes int     `json:"bytes"`
	TTL   *string `json:"ttl"` // null: it does not expire
}

type positionView struct {
	Partition  int32                      `json:"partition"`
	Partitions int32                      `json:"partitions"`
	Topic      string                     `json:"topic"`
	Next       int64                      `json:"next"`                 // offset of the next record to apply
	Rebuilding bool                       `json:"rebuilding,omitempty"` // events before that are missing, as the partition is computed again
	Newest     *string                    `json:"newest_event"`
	Sources    map[string]map[int32]int64 `json:"sources,omitempty"` // by source and partition, the highest offset applied
}

type outputView struct {
	Name      string  `json:"name"`
	Value     any     `json:"value"`
	Status    string  `json:"status"`
	Window    string  `json:"window"`
	From      *string `json:"from"` // event times in [from, to)
	To        string  `json:"to"`
	TailError string  `json:"tail_error"` // how much earlier than declared the window may begin
	Tiles     int     `json:"tiles"`
}

type tileView struct {
	Start  *string `json:"start"` // null for the remainder, which is older than all others
	Width  *string `json:"width"`
	Newest string  `json:"newest_event"`
}

func inspect(g *project.Group, entity []string, i *online.Inspection, at int64) *inspection {
	v := &inspection{
		Group: g.Name, Version: i.Version.ID, Entity: map[string]string{}, At: timeText(at),
		Redis: redisView{Key: i.Key, Bytes: len(i.State)},
		Position: positionView{
			Partition: i.Partition, Partitions: i.Version.Partitions, Topic: i.Version.Topic, Next: i.Position.Next, Newest: knownTime(i.Position.Newest),
			Rebuilding: i.Rebuilding,
		},
		Tiles: []tileView{},
	}
	for k, column := range g.Entity {
		v.Entity[column] = entity[k]
	}
	if g.Materialize {
		v.Redis.Hash = i.HashKey
	}
	if i.TTL > 0 {
		text := i.TTL.Round(time.Second).String()
		v.Redis.TTL = &text
	}
	for from, offset := range i.Position.Sources {
		if v.Position.Sources == nil {
			v.Position.Sources = map[string]map[int32]int64{}
		}
		if v.Position.Sources[from.Source] == nil {
			v.Position.Sources[from.Source] = map[int32]int64{}
		}
		v.Position.Sources[from.Source][from.Partition] = offset
	}
	e := i.Entity
	if e == nil {
		e = g.NewEntity()
	} else {
		v.Newest = knownTime(e.Newest())
	}
	for k, r := range g.Read(e, at, nil) {
		v.Outputs = append(v.Outputs, output(g.Outputs[k], r, e.SpanOf(g.Outputs[k], at)))
	}
	for _, t := range e.Tiles() {
		v.Tiles = append(v.Tiles, tile(t))
	}
	return v
}

func output(o features.Output, r features.Result, s features.Span) outputView {
	v := outputView{Name: o.Name, Value: r.Value.Any(), Status: r.Status.String(), Window: features.Lifetime, To: timeText(s.To), TailError: "0s", Tiles: s.Tiles}
	if !s.Lifetime {
		from := timeText(s.From)
		v.From, v.Window, v.TailError = &from, duration.Format(o.Window), duration.Format(o.TailError)
	}
	return v
}

func tile(t features.Tile) tileView {
	v := tileView{Newest: timeText(t.Newest)}
	if !t.Remainder {
		start, width := timeText(t.Start), duration.Format(time.Duration(t.End-t.Start)*time.Millisecond)
		v.Start, v.Width = &start, &width
	}
	return v
}

// knownTime is a time as text, nil for none.
func knownTime(ms int64) *string {
	if ms == 0 {
		return nil
	}
	text := timeText(ms)
	return &text
}

func orDash(text *string) string {
	if text == nil {
		return "-"
	}
	return *text
}

func (v *inspection) print(out io.Writer, every bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	expires := "does not expire"
	if v.Redis.TTL != nil {
		expires = "expires in " + *v.Redis.TTL
	}
	fmt.Fprintf(w, "group\t%s@%s\n", v.Group, v.Version)
	for _, column := range slices.Sorted(maps.Keys(v.Entity)) {
		fmt.Fprintf(w, "%s\t%s\n", column, v.Entity[column])
	}
	fmt.Fprintf(w, "newest event\t%s\n", orDash(v.Newest))
	fmt.Fprintf(w, "read as of\t%s\n", v.At)
	fmt.Fprintf(w, "Redis key\t%q\n", v.Redis.Key)
	if v.Redis.Hash != "" {
		fmt.Fprintf(w, "Redis hash\t%q\n", v.Redis.Hash)
	}
	fmt.Fprintf(w, "state\t%d bytes, %d tiles, %s\n", v.Redis.Bytes, len(v.Tiles), expires)
	fmt.Fprintf(w, "position\tpartition %d of %d of %s: all before offset %d, newest event %s\n",
		v.Position.Partition, v.Position.Partitions, v.Position.Topic, v.Position.Next, orDash(v.Position.Newest))
	if v.Position.Rebuilding {
		fmt.Fprintln(w, "\tbeing computed from its history: events are missing, and nobody is served this state")
	}
	for _, source := range slices.Sorted(maps.Keys(v.Position.Sources)) {
		fmt.Fprintf(w, "\tof %s up to", source)
		for _, partition := range slices.Sorted(maps.Keys(v.Position.Sources[source])) {
			fmt.Fprintf(w, " %d/%d", partition, v.Position.Sources[source][partition])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, "\nOUTPUT\tVALUE\tSTATUS\tFROM\tTO\tERROR\tTILES")
	for _, o := range v.Outputs {
		value := "-"
		if o.Value != nil {
			value = fmt.Sprint(o.Value)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\n", o.Name, value, o.Status, orDash(o.From), o.To, o.TailError, o.Tiles)
	}
	if every {
		fmt.Fprintln(w, "\nTILE\tWIDTH\tNEWEST EVENT")
		for _, t := range v.Tiles {
			if t.Start == nil {
				fmt.Fprintf(w, "remainder\t-\t%s\n", t.Newest)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", *t.Start, *t.Width, t.Newest)
		}
	}
	return w.Flush()
}
