package serving

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// catalog is the versions of the feature groups that can be read, followed as they change in Redis. Who asks for a group without saying
// more gets the active version; a model gets one of the definition that it was trained on, for as long as there is one, since on
// another it would be given other numbers under the same names.
type catalog struct {
	versions *online.Versions
	client   redis.UniversalClient
	project  *project.Project
	lease    time.Duration // for which versions are held that were read since the last look

	now atomic.Pointer[servable]

	mu sync.Mutex // of follow
}

// servable is what can be served at one time. It does not change. A version keeps its number for ever.
type servable struct {
	reader  *online.Reader
	numbers []servedVersion
	active  map[string]int // by group
	latest  map[definition]int
}

type servedVersion struct {
	group       *project.Group // of that version's definition
	id          string
	partitions  int32
	partitioner online.Partitioner
	read        *atomic.Bool // since the last look
}

// definition is what a group's version is computed by.
type definition struct{ group, version string }

// newCatalog begins with the groups as the project declares them, until it is known what there is.
func newCatalog(client redis.UniversalClient, p *project.Project, lease time.Duration) *catalog {
	c := &catalog{versions: online.NewVersions(client, p.Name), client: client, project: p, lease: lease}
	r := &servable{active: map[string]int{}, latest: map[definition]int{}}
	for i, g := range p.Groups {
		r.numbers = append(r.numbers, servedVersion{g, g.Version, g.Source.Partitions, online.Partitioner(g.Partitioner()), new(atomic.Bool)})
		r.active[g.Name], r.latest[definition{g.Name, g.Version}] = i, i
	}
	c.publish(r)
	return c
}

func (c *catalog) publish(r *servable) {
	refs := make([]online.GroupRef, len(r.numbers))
	for i, v := range r.numbers {
		refs[i] = online.GroupRef{Group: v.group.Group, Version: v.id, Partitions: v.partitions, Partitioner: v.partitioner}
	}
	r.reader = online.NewReader(c.client, c.project.Name, refs...)
	c.now.Store(r)
}

// activeOf is the number and definition of the version of a group that is read by who does not say which.
func (c *catalog) activeOf(group string) (int, *project.Group) {
	r := c.now.Load()
	n := r.active[group]
	r.numbers[n].read.Store(true)
	return n, r.numbers[n].group
}

// number is that of the version to read for a definition.
func (c *catalog) number(g *project.Group) int {
	r := c.now.Load()
	n, ok := r.latest[definition{g.Name, g.Version}]
	if !ok {
		n = r.active[g.Name] // it was deleted under us; the state does not decode, which is told
	}
	if read := r.numbers[n].read; !read.Load() {
		read.Store(true)
	}
	return n
}

// byDefinition is a group as a definition has it, nil when there is no such version to be read.
func (c *catalog) byDefinition(group, version string) *project.Group {
	r := c.now.Load()
	if n, ok := r.latest[definition{group, version}]; ok {
		return r.numbers[n].group
	}
	return nil
}

// follow brings the catalog to what Redis says, and holds what was read since the last time. A version that cannot be
// compiled any more cannot be read.
func (c *catalog) follow(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, len(c.project.Groups))
	for i, g := range c.project.Groups {
		names[i] = g.Name
	}
	known, err := c.versions.Load(ctx, names...)
	if err != nil {
		return err
	}
	before := c.now.Load()
	r := &servable{numbers: slices.Clone(before.numbers), active: map[string]int{}, latest: map[definition]int{}}
	for i, g := range c.project.Groups {
		c.followGroup(r, g, i, &known[i])
	}
	if len(r.numbers) != len(before.numbers) || !maps.Equal(r.active, before.active) || !maps.Equal(r.latest, before.latest) {
		c.publish(r)
	}
	return c.hold(ctx, r)
}

func (c *catalog) followGroup(r *servable, g *project.Group, declared int, known *online.Group) {
	if known.Active == "" { // nothing is computed yet
		r.active[g.Name], r.latest[definition{g.Name, g.Version}] = declared, declared
		return
	}
	r.active[g.Name] = declared
	for _, id := range slices.Sorted(maps.Keys(known.All)) {
		v := known.All[id]
		if _, once := known.Retired[id]; id != known.Active && !once {
			continue // not whole yet
		}
		n := r.find(g, v)
		if n < 0 {
			continue
		}
		if _, other := r.latest[definition{g.Name, v.Definition}]; !other || id == known.Active {
			r.latest[definition{g.Name, v.Definition}] = n
		}
		if id == known.Active {
			r.active[g.Name] = n
		}
	}
}

// find gives a version its number; -1 when it cannot be compiled.
func (r *servable) find(g *project.Group, v online.Version) int {
	for i, s := range r.numbers {
		if s.group.Name == g.Name && s.id == v.ID && s.partitions == v.Partitions && s.partitioner == v.Partitioner {
			return i
		}
	}
	if v.Definition != g.Version {
		p, err := project.LoadFiles(v.Project)
		if err != nil {
			return -1
		}
		if g = p.Group(g.Name); g == nil || g.Version != v.Definition {
			return -1
		}
	}
	r.numbers = append(r.numbers, servedVersion{g, v.ID, v.Partitions, v.Partitioner, new(atomic.Bool)})
	return len(r.numbers) - 1
}

func (c *catalog) hold(ctx context.Context, r *servable) error {
	for _, v := range r.numbers {
		if v.read.Swap(false) {
			if err := c.versions.Hold(ctx, v.group.Name, v.id, c.lease); err != nil {
				return err
			}
		}
	}
	return nil
}

// followVersions follows the versions until ctx ends.
func (s *Stage) followVersions(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.FollowEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.lookAtVersions(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Stage) lookAtVersions(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ReadTimeout)
	defer cancel()
	if err := s.catalog.follow(ctx); err != nil && failure.Of(err) == failure.Corrupt {
		s.deps.Log.Error("versions of feature groups cannot be read", "error", err)
	}
}

// planFor compiles the plan of a model of the registry: with the definitions that it was trained on, where those are still kept. With
// definitions that are not, its inputs do not match, and it is refused.
func (d *deployment) planFor(signature []model.SignatureInput) (*plan, error) {
	trained := map[string]*project.Group{}
	for _, in := range signature {
		group, rest, ok := strings.Cut(in.Source, "@")
		version, _, behind := strings.Cut(rest, "/")
		if !ok || !behind {
			continue
		}
		if g := d.catalog.byDefinition(group, version); g != nil {
			trained[group] = g
		}
	}
	for _, p := range d.plans() {
		if p.reads(trained) {
			return p, nil
		}
	}
	p, err := compilePlan(d.model, d.catalog.project.Groups, trained)
	if err == nil {
		p.catalog = d.catalog
	}
	return p, err
}

// plans is the plans that there are: who reads the same versions shares one, and so one read.
func (d *deployment) plans() []*plan {
	now := d.live.Load()
	return append([]*plan{d.plan, now.plan}, now.beside...)
}

// reads reports whether the plan reads its groups by these definitions, as far as they name them.
func (p *plan) reads(trained map[string]*project.Group) bool {
	return !slices.ContainsFunc(p.groups, func(g plannedGroup) bool {
		t := trained[g.group.Name]
		return t != nil && t.Version != g.group.Version
	})
}

// outputOf is the index that a version of the group has for an output of the group as it is declared; -1 without it.
func outputOf(g *project.Group, declared features.Output) int {
	i := g.Output(declared.Name)
	if i >= 0 && g.Outputs[i].Kind != declared.Kind {
		return -1
	}
	return i
}
