package ingest

import (
	"context"
	"slices"
	"strings"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams"
)

// A topic that is deleted and created again begins at offset 0. What was applied and kept is told by offsets: the new topic's events would pass for
// what was done long ago, up to the old topic's end, and never be counted. Kafka tells such topics apart by their ID. Each version of a group, and each
// folder of offline files, remembers those of the topics that its offsets are of.

// topics is the names of the topics that the positions of a group's state count in.
func (g *group) topics() []string {
	all := []string{g.KeyedTopic}
	for _, root := range g.roots {
		if !slices.Contains(all, root.Topic) {
			all = append(all, root.Topic)
		}
	}
	return all
}

// recreated is what must go before a topic that was created again can be read from its beginning.
type recreated struct {
	topics  []string // that are others now
	folders []string // of offline files that hold what the old ones had
	keyed   []string // topics that do
	groups  []string // whose states do
}

// checkRecreated finds out that a topic was deleted and created again, and says what to do. Where all is well, it has the offline folders remember their
// topics. anew is a group that is about to be computed anew: its state may hold what it will, and nothing else is looked at.
func (s *Stage) checkRecreated(ctx context.Context, anew *group) error {
	sources, groups := s.sources, s.targets()
	if anew != nil {
		sources, groups = anew.roots, []*group{anew}
	}
	var names []string
	for _, src := range sources {
		names = append(names, src.Topic)
	}
	for _, g := range groups {
		names = append(names, g.topics()...)
	}
	slices.Sort(names)
	ids, err := streams.TopicIDs(ctx, s.producer, slices.Compact(names)...)
	if err != nil {
		return err
	}
	var r recreated
	for _, src := range sources {
		if err := r.folder(src.events, src.Topic, ids); err != nil {
			return err
		}
	}
	for _, g := range groups {
		if err := r.folder(g.rows, g.KeyedTopic, ids); err != nil {
			return err
		}
		if s.deps.Redis == nil {
			continue
		}
		known, err := s.versions.Load(ctx, g.Name)
		if err != nil {
			return err
		}
		r.group(g, &known[0], ids, g == anew)
	}
	return r.fault()
}

// folder looks at a folder of offline files, which may be nil.
func (r *recreated) folder(t *offline.Table, topic string, ids map[string]string) error {
	id := ids[topic]
	if t == nil || id == "" {
		return nil
	}
	of, err := t.Topic(id)
	if err == nil && of != id {
		r.topics, r.folders = append(r.topics, topic), append(r.folders, t.Dir())
	}
	return err
}

// group looks at the states of a group that Redis has.
func (r *recreated) group(g *group, known *online.Group, ids map[string]string, anew bool) {
	now := &online.Version{TopicIDs: ids}
	for id, v := range known.All {
		if v.SameTopics(now) {
			continue
		}
		if !g.Direct && v.Topic == g.KeyedTopic && v.TopicIDs[v.Topic] == ids[v.Topic] { // the other topics' records are still on it
			r.keyed = append(r.keyed, v.Topic)
			if g.rows != nil {
				r.folders = append(r.folders, g.rows.Dir())
			}
		} else if id != known.Target || anew {
			continue
		}
		if id == known.Target {
			r.groups = append(r.groups, g.Name)
		}
		for name, was := range v.TopicIDs {
			if is, there := ids[name]; there && is != was {
				r.topics = append(r.topics, name)
			}
		}
	}
}

// fault says all that must be done, in its order; nil where there is nothing.
func (r *recreated) fault() error {
	if len(r.topics) == 0 {
		return nil
	}
	list := func(of []string) string {
		slices.Sort(of)
		return strings.Join(slices.Compact(of), ", ")
	}
	steps := []string{"stop all stream roles"}
	if len(r.folders) > 0 {
		steps = append(steps, "move away "+list(r.folders))
	}
	if len(r.keyed) > 0 {
		steps = append(steps, "delete the topics "+list(r.keyed))
	}
	slices.Sort(r.groups)
	for _, g := range slices.Compact(r.groups) {
		steps = append(steps, "millrace backfill "+g)
	}
	return failure.New(failure.BadProject, list(r.topics), "was deleted and created again since its events were counted: its offsets are other events' now, which would be passed over as done").
		WithHint("to begin with what it has now: %s; then start the stream role again", strings.Join(steps, "; "))
}
