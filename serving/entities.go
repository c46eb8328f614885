package serving

import (
	"context"
	"net/http"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving/access"
)

// FeatureRef names a feature by its group and its output.
type FeatureRef struct{ Group, Feature string }

// EntityRead asks for the features of one entity, named by its group's entity columns; nobody's where Entity is nil.
type EntityRead struct {
	Group  string
	Entity map[string]string
}

// EntityFeatures is what is known of an entity, by output of its group.
type EntityFeatures struct {
	Newest   int64 // event time of its newest event, Unix milliseconds; 0 without one
	Features []Feature
}

// Feature is one value, as of the time of the read.
type Feature struct {
	Value  any    // schemas.Value.Any's
	Status string // present, null, not_found, expired or overflow
}

// Group is a feature group as it is read now.
func (s *Stage) Group(ctx context.Context, name string) (*project.Group, *Problem) {
	if !access.AllowsAny(ctx, s.readers[name]) {
		return nil, ProblemOf(access.Refuse(ctx))
	}
	if s.groups[name] == nil {
		return nil, absent("group", "the project has no such feature group")
	}
	_, g := s.catalog.activeOf(name)
	return g, nil
}

// Groups is the feature groups that who asks may read, in the project's order.
func (s *Stage) Groups(ctx context.Context) []*project.Group {
	var groups []*project.Group
	for _, g := range s.deps.Project.Groups {
		if g, p := s.Group(ctx, g.Name); p == nil {
			groups = append(groups, g)
		}
	}
	return groups
}

// MaxRows is the most rows that a request may have.
func (s *Stage) MaxRows() int { return s.cfg.MaxRows }

// FeaturesOf is the features that a model is made of, each once.
func (s *Stage) FeaturesOf(ctx context.Context, model string) ([]FeatureRef, *Problem) {
	d, p := s.allowed(ctx, model)
	if p != nil {
		return nil, p
	}
	var refs []FeatureRef
	seen := map[FeatureRef]bool{}
	for _, in := range d.model.Inputs {
		if in.Group == nil {
			continue
		}
		ref := FeatureRef{in.Group.Name, in.Group.Outputs[in.Output].Name}
		if !seen[ref] {
			refs, seen[ref] = append(refs, ref), true
		}
	}
	return refs, nil
}

// MayPush is nil when who asks may produce to a source: a token for certain models may to those that they are on or made from.
func (s *Stage) MayPush(ctx context.Context, source string) *Problem {
	var models []string
	for _, m := range s.deps.Project.Models {
		made := m.On.Name == source
		for _, in := range m.Inputs {
			made = made || in.Group != nil && in.Group.Source.Name == source
		}
		if made {
			models = append(models, m.Name)
		}
	}
	if !access.AllowsAny(ctx, models) {
		return ProblemOf(access.Refuse(ctx))
	}
	return nil
}

// ReadEntities reads entities in one round trip, as of now; it refuses when one is of a partition that is being rebuilt. The groups are those that Group lets who asks read.
func (s *Stage) ReadEntities(ctx context.Context, c Call, reads []EntityRead) ([]EntityFeatures, *Problem) {
	if len(reads) > s.cfg.MaxRows*len(s.groups) {
		p := badRequest(codeTooManyRows, "entities", "%d entities, at most %d", len(reads), s.cfg.MaxRows*len(s.groups))
		p.Status = http.StatusRequestEntityTooLarge
		return nil, p
	}
	allowed := s.cfg.MaxTimeout
	if c.Timeout > 0 {
		allowed = min(allowed, c.Timeout)
	}
	ctx, cancel := deadlineOf(ctx, allowed)
	defer cancel()
	if p := s.admitted.enter(ctx); p != nil {
		return nil, p
	}
	defer s.admitted.leave()
	refs, at := make([]online.Ref, 0, len(reads)), make([]int, len(reads)) // by read, its ref; noEntity is nobody's
	groups := make([]*project.Group, len(reads))
	for i, read := range reads {
		number, g := s.catalog.activeOf(read.Group)
		groups[i], at[i] = g, noEntity
		if read.Entity == nil {
			continue
		}
		key, err := g.KeyOf(read.Entity)
		if err != nil {
			return nil, unnamed(err)
		}
		at[i] = len(refs)
		refs = append(refs, online.Ref{Group: number, Key: key})
	}
	entries, err := s.fetch.get(ctx, refs)
	if err != nil {
		return nil, problemOf(err)
	}
	var newest int64
	for i := range entries {
		newest = max(newest, entries[i].Position.Newest)
	}
	now, _ := s.now(newest)
	out := make([]EntityFeatures, len(reads))
	scratch := map[*project.Group]*features.Scratch{}
	for i := range reads {
		var view *features.View
		if at[i] != noEntity && entries[at[i]].Rebuilding {
			return nil, rebuilding(groups[i].Name)
		}
		if at[i] != noEntity && entries[at[i]].State != nil {
			view = &features.View{}
			if err := groups[i].Open(view, entries[at[i]].State); err != nil {
				return nil, problemOf(err)
			}
			out[i].Newest = view.Newest()
		}
		if scratch[groups[i]] == nil {
			scratch[groups[i]] = &features.Scratch{}
		}
		for _, r := range groups[i].ReadView(scratch[groups[i]], view, now, nil) {
			out[i].Features = append(out[i].Features, Feature{r.Value.Any(), statusOf(r.Status).String()})
		}
	}
	return out, nil
}
