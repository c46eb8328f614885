package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
)

// explainCommand says what a feature is, which takes no server, or what a prediction was made of.
type explainCommand struct {
	servers `embed:""`
	Feature string `arg:"" name:"what" help:"GROUP.FEATURE, or GROUP.FEATURE_WINDOW for one of its windows; or the id of a prediction, which needs Kafka."`
	JSON    bool   `name:"json" help:"Print JSON."`
}

func (c *explainCommand) Run(ctx context.Context, env *environment) error {
	if strings.Contains(c.Feature, "/") { // as every prediction's id does, and no feature
		return c.explainPrediction(ctx, env)
	}
	p, err := c.load()
	if err != nil {
		return err
	}
	g, definition, outputs, err := featureNamed(p, c.Feature)
	if err != nil {
		return err
	}
	dir := dataDir(p, c.DataDir)
	r, err := stored{c.folder, c.DataDir}.registry()
	if err != nil {
		return err
	}
	e, err := explain(p, g, definition, outputs, filepath.Join(dir, "offline"))
	if err != nil {
		return err
	}
	if e.Models, err = users(p, g, outputs, r); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(env.out).Encode(e)
	}
	return e.print(env.out)
}

// featureNamed finds "group.feature", with all outputs of the feature, or "group.output".
func featureNamed(p *project.Project, text string) (*project.Group, *features.FeatureDefinition, []features.Output, error) {
	group, name, ok := strings.Cut(text, ".")
	if !ok {
		return nil, nil, nil, failure.New(failure.BadRequest, text, "is no feature").WithHint("write it as GROUP.FEATURE")
	}
	g, err := groupNamed(p, group)
	if err != nil {
		return nil, nil, nil, err
	}
	var outputs []features.Output
	var names []string
	for _, o := range g.Outputs {
		if o.Name == name {
			outputs, name = []features.Output{o}, o.Feature
			break
		}
		if o.Feature == name {
			outputs = append(outputs, o)
		}
		names = append(names, o.Name)
	}
	for i := range g.Features {
		if g.Features[i].Name == name && len(outputs) > 0 {
			return g, &g.Features[i], outputs, nil
		}
		names = append(names, g.Features[i].Name)
	}
	slices.Sort(names)
	return nil, nil, nil, unknownName("feature of "+g.Name, name, slices.Compact(names))
}

// explanation is what explain shows.
type explanation struct {
	Feature    string        `json:"feature"`
	Group      string        `json:"group"`
	Version    string        `json:"version"`
	File       string        `json:"file"`
	Line       int           `json:"line"`
	Expression string        `json:"expression"`
	Where      []string      `json:"where"` // conditions, of the group and of the feature
	Entity     []string      `json:"entity"`
	Source     sourceView    `json:"source"`
	Default    string        `json:"default"`
	KnownAt    string        `json:"known_at"`
	TTL        string        `json:"ttl"`
	Outputs    []outputKind  `json:"outputs"`
	Online     onlineView    `json:"online"`
	Offline    offlineView   `json:"offline"`
	Models     []featureUser `json:"models"`
}

type sourceView struct {
	Name     string `json:"name"`
	Topic    string `json:"topic"`
	Schema   string `json:"schema"`
	Time     string `json:"time"`
	Lateness string `json:"lateness"`
	Keyed    string `json:"keyed_topic"` // what the group is computed from
	Direct   bool   `json:"direct"`      // it is the source's own topic
}

type outputKind struct {
	Name      string `json:"name"`
	Window    string `json:"window"`
	TailError string `json:"tail_error"`
	Kind      string `json:"kind"`
}

type onlineView struct {
	State      string `json:"state"`
	Position   string `json:"position"`
	Partitions int32  `json:"partitions"`
}

type offlineView struct {
	Features string `json:"features"` // table of values
	Events   string `json:"events"`   // tables of what they are made of
	Every    string `json:"every"`
}

// featureUser is a model that has the feature among its inputs.
type featureUser struct {
	Model    string         `json:"model"`
	Inputs   []string       `json:"inputs"`
	Own      []string       `json:"include_request,omitempty"` // those of the inputs that the event that asks is merged into
	Champion *trainedOn     `json:"champion"`
	Made     []registry.Ref `json:"made_of"` // of the champion
}

// trainedOn is a model version, and whether the feature still is what it was trained with.
type trainedOn struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	Same    bool   `json:"same_definition"`
}

func explain(p *project.Project, g *project.Group, f *features.FeatureDefinition, outputs []features.Output, offlineDir string) (*explanation, error) {
	values, err := offline.FeaturesTable(offlineDir, g.Group)
	if err != nil {
		return nil, err
	}
	var events, topics []string // of all that the source is merged of
	for _, root := range g.Source.Roots() {
		table, err := offline.EventsTable(offlineDir, root.Name, root.Schema)
		if err != nil {
			return nil, err
		}
		events, topics = append(events, table.Dir()), append(topics, root.Topic)
	}
	partitions := p.Partitions
	if g.Direct {
		partitions = g.Source.Partitions
	}
	state, position := online.KeyPatterns(p.Name, g.Name, g.Version)
	e := &explanation{
		Feature: g.Name + "." + f.Name, Group: g.Name, Version: g.Version, File: project.FileName, Line: f.Line, Expression: f.Aggregate,
		Where: []string{}, Entity: g.Entity, TTL: "never",
		Source: sourceView{
			Name: g.Source.Name, Topic: strings.Join(topics, ", "), Schema: g.Source.SchemaFile, Time: g.Source.Time, Lateness: duration.Format(g.Lateness),
			Keyed: g.KeyedTopic, Direct: g.Direct,
		},
		Default: "none declared: an empty window is null, of a count 0", Online: onlineView{State: state, Position: position, Partitions: partitions},
		Offline: offlineView{Features: values.Dir(), Events: strings.Join(events, ", "), Every: duration.Format(g.Offline.Every)},
		KnownAt: "an event counts in what is read as of any moment after its event time; a training row sees the events before its own time only",
	}
	for _, where := range []string{g.Where, f.Where} {
		if where != "" {
			e.Where = append(e.Where, where)
		}
	}
	if g.Source.Time == "" {
		e.Source.Time = "the record's timestamp"
	}
	if f.Default != nil {
		e.Default = strconv.FormatFloat(*f.Default, 'g', -1, 64)
	}
	if g.TTL > 0 {
		e.TTL = duration.Format(g.TTL)
	}
	if g.Offline.EveryEvent {
		e.Offline.Every = "every event"
	}
	for _, o := range outputs {
		k := outputKind{Name: o.Name, Window: features.Lifetime, TailError: "0s", Kind: o.Kind.String()}
		if o.Window > 0 {
			k.Window, k.TailError = duration.Format(o.Window), duration.Format(o.TailError)
		}
		e.Outputs = append(e.Outputs, k)
	}
	return e, nil
}

// users lists the models that have any of the outputs among their inputs, with their champions.
func users(p *project.Project, g *project.Group, outputs []features.Output, r *registry.Registry) ([]featureUser, error) {
	list := []featureUser{}
	for _, m := range p.Models {
		u := featureUser{Model: m.Name}
		sources := map[string]string{} // what each input is made of now, as a model's signature writes it
		for _, in := range m.Inputs {
			if in.Group != g {
				continue
			}
			o := g.Outputs[in.Output]
			if slices.ContainsFunc(outputs, func(x features.Output) bool { return x.Name == o.Name }) {
				u.Inputs = append(u.Inputs, in.Name)
				if in.Own != nil {
					u.Own = append(u.Own, in.Name)
				}
				sources[in.Name] = g.Meaning(in.Output, in.Own != nil)
			}
		}
		if len(u.Inputs) == 0 {
			continue
		}
		var err error
		if u.Champion, u.Made, err = championOf(r, m.Name, sources); err != nil {
			return nil, err
		}
		list = append(list, u)
	}
	return list, nil
}

// championOf is a model's champion and the artefacts it was made of, nil when there is none.
func championOf(r *registry.Registry, name string, sources map[string]string) (*trainedOn, []registry.Ref, error) {
	digest, version, err := r.Alias(name, registry.Champion)
	if failure.Of(err) == failure.NotFound && err != nil {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	manifest, content, err := r.Read(digest)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := model.DecodeBundle(content)
	if err != nil {
		return nil, nil, err
	}
	t := &trainedOn{Version: version, Digest: digest, Same: true}
	for _, in := range bundle.Signature {
		if now, ok := sources[in.Name]; ok && in.Source != "" && in.Source != now {
			t.Same = false
		}
	}
	return t, manifest.Inputs, nil
}

func (e *explanation) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "feature\t%s, %s line %d\n", e.Feature, e.File, e.Line)
	fmt.Fprintf(w, "expression\t%s\n", e.Expression)
	for _, where := range e.Where {
		fmt.Fprintf(w, "where\t%s\n", where)
	}
	fmt.Fprintf(w, "entity\t%s\n", strings.Join(e.Entity, ", "))
	fmt.Fprintf(w, "group\t%s@%s\n", e.Group, e.Version)
	fmt.Fprintf(w, "source\t%s: topic %s, schema %s, event time %s, lateness %s\n", e.Source.Name, e.Source.Topic, e.Source.Schema, e.Source.Time, e.Source.Lateness)
	computed := "computed from " + e.Source.Keyed + ", re-keyed by the entity"
	if e.Source.Direct {
		computed = "computed from the source's topic, which is keyed by the entity"
	}
	fmt.Fprintf(w, "\t%s\n", computed)
	fmt.Fprintf(w, "default\t%s\n", e.Default)
	fmt.Fprintf(w, "known at\t%s\n", e.KnownAt)
	fmt.Fprintf(w, "expired after\t%s\n", e.TTL)
	fmt.Fprintf(w, "online\t%s, of %d partitions by murmur2 of the entity\n", e.Online.State, e.Online.Partitions)
	fmt.Fprintf(w, "\t%s: the position it was written with\n", e.Online.Position)
	fmt.Fprintf(w, "offline\t%s, %s\n", e.Offline.Features, e.Offline.Every)
	fmt.Fprintf(w, "\t%s: the events\n", e.Offline.Events)
	for _, m := range e.Models {
		fmt.Fprintf(w, "model\t%s as %s\n", m.Model, strings.Join(m.Inputs, ", "))
		if len(m.Own) > 0 {
			fmt.Fprintf(w, "\twith the event that asks merged in: %s\n", strings.Join(m.Own, ", "))
		}
		if m.Champion == nil {
			fmt.Fprintln(w, "\thas no champion")
			continue
		}
		same := "with this definition"
		if !m.Champion.Same {
			same = "with ANOTHER definition: it is not served before it is trained again"
		}
		fmt.Fprintf(w, "\tchampion %d %s, trained %s\n", m.Champion.Version, m.Champion.Digest, same)
		for _, made := range m.Made {
			fmt.Fprintf(w, "\t  of %s %s\n", made.Role, made.Digest)
		}
	}
	if len(e.Models) == 0 {
		fmt.Fprintln(w, "model\tnone has it among its inputs")
	}
	fmt.Fprintln(w, "\nOUTPUT\tWINDOW\tERROR\tKIND")
	for _, o := range e.Outputs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", o.Name, o.Window, o.TailError, o.Kind)
	}
	return w.Flush()
}
