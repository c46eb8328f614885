package ingest

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// A group's state has versions (features/online.Version). This stage computes the one that its project asks for, the target, and beside
// it those that readers may still read: the active one until the target has caught up and readers have been moved to it, and after that
// for as long as somebody holds it and for Config.Grace. Then its keys are deleted. See docs/decisions/0009-versions.md.

// declare makes the version that the project asks for the target of its group: one of the same definition and layout if there is any.
func (s *Stage) declare(ctx context.Context, g *group) error {
	want, err := s.wanted(ctx, g)
	if err != nil {
		return err
	}
	known, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return err
	}
	if want, err = chooseVersion(g, &known[0], want); err != nil {
		return err
	}
	g.version = want
	return s.versions.Declare(ctx, g.Name, want)
}

// wanted is the version of a group that the project asks for, on its topic as it is.
func (s *Stage) wanted(ctx context.Context, g *group) (online.Version, error) {
	n, err := streams.Partitions(ctx, s.producer, g.KeyedTopic)
	if errors.Is(err, streams.ErrNoTopic) { // just created: not every broker knows of it yet
		return online.Version{}, failure.Wrap(failure.Unavailable, g.KeyedTopic, "waiting for the new topic", err)
	}
	if err != nil {
		return online.Version{}, err
	}
	ids, err := streams.TopicIDs(ctx, s.producer, g.topics()...)
	if err != nil {
		return online.Version{}, err
	}
	return online.Version{
		TopicIDs:   ids,
		Definition: g.Version, Topic: g.KeyedTopic, Partitions: n, Partitioner: online.Partitioner(g.Partitioner()),
		Declared: s.deps.Clock().UnixMilli(), Project: s.deps.Project.Files,
	}, nil
}

// chooseVersion finds a version like the wanted one, or makes it a new one.
func chooseVersion(g *group, known *online.Group, want online.Version) (online.Version, error) {
	var grown *online.Version
	order := append([]string{known.Target, known.Active}, slices.Sorted(maps.Keys(known.All))...)
	for _, id := range order {
		v, ok := known.All[id]
		if !ok || v.Definition != want.Definition {
			continue
		}
		if !v.SameTopics(&want) {
			continue
		}
		if v.SameLayout(&want) {
			return v, nil
		}
		if g.Direct && v.Topic == want.Topic && v.Partitioner == want.Partitioner && grown == nil {
			grown = &v
		}
	}
	if grown != nil {
		return want, repartitioned(g, grown, want.Partitions)
	}
	want.ID = known.Next(want.Definition)
	return want, nil
}

// repartitioned says that entities are looked for where they are not.
func repartitioned(g *group, v *online.Version, partitions int32) error {
	return failure.New(failure.BadProject, g.Name, "topic %s has %d partitions, version %s was computed from %d: its entities' records come to other partitions now",
		v.Topic, partitions, v.ID, v.Partitions).
		WithHint("millrace backfill %s computes it anew over %d partitions, beside the old state; then start the stream role again", g.Name, partitions)
}

// checkLayout finds out that a topic was given more partitions while the stage runs. A group that reads its source directly would be served
// wrongly; a keyed topic's records go to the partitions that the version has, whatever there are more.
func (s *Stage) checkLayout(ctx context.Context, g *group) error {
	if ids, err := streams.TopicIDs(ctx, s.producer, g.topics()...); err != nil {
		return err
	} else if !g.version.SameTopics(&online.Version{TopicIDs: ids}) {
		return failure.New(failure.BadProject, g.Name, "a topic that version %s was computed from was deleted and created again", g.version.ID)
	}
	if !g.Direct {
		return nil
	}
	n, err := streams.Partitions(ctx, s.producer, g.KeyedTopic)
	if err != nil || n == g.version.Partitions {
		return err
	}
	return repartitioned(g, &g.version, n)
}

// earlier makes the versions of a group that are to be computed beside its target.
func (s *Stage) earlier(ctx context.Context, g *group) ([]*group, error) {
	known, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return nil, err
	}
	var all []*group
	for _, id := range slices.Sorted(maps.Keys(known[0].All)) {
		v := known[0].All[id]
		if id == g.version.ID {
			continue
		}
		wanted, err := s.wantedStill(ctx, g.Name, &known[0], v)
		if err != nil {
			return nil, err
		}
		if !wanted {
			continue
		}
		old, err := s.compileAgain(ctx, g, v)
		if err == nil && !old.Direct && v.Topic == g.version.Topic && v.Partitions != g.version.Partitions {
			err = failure.New(failure.BadProject, v.Topic, "its records are spread over %d partitions now, not %d", g.version.Partitions, v.Partitions)
		}
		if err == nil && !old.Direct && v.Topic == g.version.Topic && !slices.Equal(old.keyedBy(), g.keyedBy()) {
			err = failure.New(failure.BadProject, v.Topic, "its records are keyed by %v now, not %v", g.keyedBy(), old.keyedBy())
		}
		if err == nil && !old.Direct && v.Topic != g.version.Topic && old.ownRows {
			err = failure.New(failure.BadProject, v.Topic, "nothing is re-keyed to it any more by what its source derived or merged")
		}
		if err != nil {
			var fault *failure.Error
			if errors.As(err, &fault) {
				fault.Hint = "version " + g.version.ID + " takes its place" // what it would need itself is not wanted any more
			}
			s.log.Warn("an earlier version stays as it is: it cannot be computed any more", "group", g.Name, "version", id, "reason", err)
			continue
		}
		all = append(all, old)
	}
	return all, nil
}

// wantedStill reports whether somebody may read a version that is not the target.
func (s *Stage) wantedStill(ctx context.Context, group string, known *online.Group, v online.Version) (bool, error) {
	since := max(v.Declared, known.Retired[v.ID])
	if v.ID == known.Active || v.ID == known.Target || s.deps.Clock().Sub(time.UnixMilli(since)) < s.cfg.Grace {
		return true, nil
	}
	return s.versions.Held(ctx, group, v.ID)
}

// compileAgain makes a group of a version that is not the project's, from the project that it was declared with and on the source as it
// is declared now. It must come to the same definition.
func (s *Stage) compileAgain(ctx context.Context, g *group, v online.Version) (*group, error) {
	declared := g.Group
	if v.Definition != g.Version {
		before, err := project.LoadFiles(v.Project)
		if err != nil {
			return nil, err
		}
		if declared = before.Group(g.Name); declared == nil {
			return nil, failure.New(failure.NotFound, g.Name, "the project that declared version %s has no such group", v.ID)
		}
	}
	old, err := s.onSourcesNow(declared)
	if err != nil {
		return nil, err
	}
	compiled, faults := features.Compile(declared.Definition, old.Source.Schema)
	if len(faults) > 0 {
		return nil, faults[0]
	}
	if compiled.Version != v.Definition {
		return nil, failure.New(failure.BadProject, g.Name, "on the source as it is declared now, version %s means something else", v.ID)
	}
	old.Group.Group, old.KeyedTopic, old.Direct = compiled, v.Topic, !old.Source.Merged() && v.Topic == old.roots[0].Topic
	old.version, old.expiry = v, expiry(s.deps.Project, old.Group)
	return old, s.checkLayout(ctx, old)
}

// onSourcesNow is a group on the topics that its sources have now. What the project that declared it derived, looked up, merged and
// passed over stays as it was there (ownRows), as long as the records are the same; where it was none of it, records may have changed.
func (s *Stage) onSourcesNow(declared *project.Group) (*group, error) {
	again := *declared
	old := &group{Group: &again}
	if slices.ContainsFunc(s.deps.Project.Sources, func(now *project.Source) bool { return now == declared.Source }) {
		for _, root := range declared.Source.Roots() {
			old.roots = append(old.roots, s.sources[slices.IndexFunc(s.sources, func(src *source) bool { return src.Source == root })])
		}
		return old, nil
	}
	for _, root := range declared.Source.Roots() {
		i := slices.IndexFunc(s.sources, func(src *source) bool { return src.Name == root.Name && src.Topic == root.Topic })
		if i < 0 {
			return nil, failure.New(failure.NotFound, root.Name, "the project does not read this source from topic %s any more", root.Topic)
		}
		old.roots = append(old.roots, s.sources[i])
	}
	if now := old.roots[0]; !declared.Source.Merged() && declared.Source.Plain() && now.Plain() {
		again.Source = now.Source
		return old, nil
	}
	old.ownRows = true
	for i, root := range declared.Source.Roots() {
		src, err := s.withRowsOf(root, old.roots[i])
		if err != nil {
			return nil, err
		}
		old.roots[i] = src
	}
	return old, nil
}

// withRowsOf is a source of an earlier project, which still makes rows of the records as it did, in the circumstances of now. It takes
// the place of what the earlier project read itself.
func (s *Stage) withRowsOf(before *project.Source, now *source) (_ *source, err error) {
	if before.Schema.Record().Canonical() != now.Schema.Record().Canonical() || before.Key != now.Key || before.Time != now.Time {
		return nil, failure.New(failure.BadProject, before.Name, "its records are others than those that its columns were derived from")
	}
	before.Format, before.Partitioner, before.Lateness, before.Future, before.Partitions, before.OfflineBy =
		now.Format, now.Partitioner, now.Lateness, now.Future, now.Partitions, now.OfflineBy
	src := &source{Source: before, pace: now.pace}
	if src.decoder, err = schemas.NewDecoder(before.Schema, before.Format, s.registry); err != nil {
		return nil, err
	}
	if s.deps.OfflineDir != "" {
		src.events, err = offline.EventsTable(s.deps.OfflineDir, before.Name, before.Schema)
	}
	return src, err
}

// keyedBy is the columns of the group's entity, with what those are made by that no record has.
func (g *group) keyedBy() []string {
	by := make([]string, len(g.Entity))
	for i, name := range g.Entity {
		column, _ := g.Source.Schema.Column(name)
		by[i] = column.Meaning()
	}
	return by
}

// isActive reports whether readers read the version.
func (s *Stage) isActive(ctx context.Context, g *group) (bool, error) {
	known, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return false, err
	}
	return known[0].Active == g.version.ID, nil
}

// rekeyed has the sources of a group re-key for it, once for every topic.
func (g *group) rekeyed() {
	if g.Direct {
		return
	}
	for _, src := range g.roots {
		if !slices.ContainsFunc(src.keyed, func(other *group) bool { return other.KeyedTopic == g.KeyedTopic }) {
			src.keyed = append(src.keyed, g)
		}
	}
}

// tend looks after the versions of all groups until ctx ends: it moves readers to what has caught up, ends and deletes what nobody reads,
// and stops at a topic that was given more partitions.
func (s *Stage) tend(ctx context.Context, run func(*group) error) error {
	ticks := time.NewTicker(s.cfg.VersionsEvery)
	defer ticks.Stop()
	ends := map[*group]*ends{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		if err := s.checkRecreated(ctx, nil); err != nil && ctx.Err() == nil && !failure.Of(err).Retry() {
			return err
		}
		if err := online.CheckPolicy(ctx, s.deps.Redis); err != nil { // switched since the start, or of the replica that took over
			return err
		}
		for _, g := range s.targets() {
			err := s.tendGroup(ctx, g, ends, run)
			switch {
			case err == nil || ctx.Err() != nil:
			case failure.Of(err).Retry():
				s.log.Warn("looking after versions", "group", g.Name, "error", err)
			default:
				return err
			}
		}
	}
}

func (s *Stage) tendGroup(ctx context.Context, g *group, before map[*group]*ends, run func(*group) error) error {
	if err := s.checkLayout(ctx, g); err != nil {
		return err
	}
	loaded, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return err
	}
	known := &loaded[0]
	if known.Target == "" { // Redis was emptied
		return s.versions.Declare(ctx, g.Name, g.version)
	}
	if v := known.All[known.Target]; known.Target != g.version.ID && v.Definition == g.Version { // computed anew by command
		again, err := s.compileAgain(ctx, g, v)
		if err != nil {
			return err
		}
		again.rows, g.rows = g.rows, nil
		s.replaceTarget(g, again)
		return run(again)
	}
	if known.Active != g.version.ID && known.Target == g.version.ID {
		if err := s.swap(ctx, g, known.Active, before); err != nil {
			return err
		}
	}
	return s.retire(ctx, g, known)
}

// swap moves the readers to a version when it has caught up.
func (s *Stage) swap(ctx context.Context, g *group, from string, before map[*group]*ends) error {
	caughtUp, err := s.caughtUp(ctx, g, before)
	if err != nil || !caughtUp {
		return err
	}
	moved, err := s.versions.Swap(ctx, g.Name, from, g.version.ID, s.deps.Clock())
	if err != nil {
		return err
	}
	if moved {
		s.log.Info("readers are moved", "group", g.Name, "from", from, "to", g.version.ID)
	}
	return nil
}

// ends is the ends of the topics that lead to a group, by partition, as of the last look.
type ends struct {
	topic []int64
	roots [][]int64 // of each root of a group that is re-keyed
}

// caughtUp reports whether a version has everything that there was at the last look.
func (s *Stage) caughtUp(ctx context.Context, g *group, before map[*group]*ends) (bool, error) {
	last := before[g]
	now, err := s.ends(ctx, g)
	if err != nil {
		return false, err
	}
	before[g] = now
	if last == nil {
		return false, nil
	}
	if !g.Direct {
		for i, root := range g.roots {
			done, err := streams.Committed(ctx, s.producer, SourceGroup(s.deps.Project, root.Source)+s.suffix, root.Topic)
			if err != nil {
				return false, err
			}
			for p, end := range last.roots[i] {
				if end > 0 && done[int32(p)] < end {
					return false, nil
				}
			}
		}
	}
	w := online.NewWriter(s.deps.Redis, s.deps.Project.Name, g.Name, g.version.ID)
	for p := range g.version.Partitions {
		l, err := w.LoadRows(ctx, p)
		if err != nil || !filled(l) || l.Position.Next < last.topic[p] {
			return false, err
		}
	}
	return true, nil
}

func (s *Stage) ends(ctx context.Context, g *group) (*ends, error) {
	topic, err := streams.EndOffsets(ctx, s.producer, g.KeyedTopic)
	all := &ends{topic: topic}
	if err != nil || g.Direct {
		return all, err
	}
	for _, root := range g.roots {
		source, err := streams.EndOffsets(ctx, s.producer, root.Topic)
		if err != nil {
			return nil, err
		}
		all.roots = append(all.roots, source)
	}
	return all, nil
}

// retire ends versions that nobody reads and those that are gone.
func (s *Stage) retire(ctx context.Context, g *group, known *online.Group) error {
	for _, c := range s.computed(g.Name) {
		if _, there := known.All[c.group.version.ID]; !there && c.group.version.ID != known.Target {
			s.stopComputing(c)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(known.All)) {
		wanted, err := s.wantedStill(ctx, g.Name, known, known.All[id])
		if err != nil {
			return err
		}
		if wanted {
			continue
		}
		for _, c := range s.computed(g.Name) {
			if c.group.version.ID == id {
				s.stopComputing(c)
			}
		}
		dropped, err := s.versions.Drop(ctx, g.Name, id)
		if err != nil {
			return err
		}
		if dropped {
			s.log.Info("an earlier version is deleted", "group", g.Name, "version", id)
		}
	}
	return nil
}

// stillDeclared is false of a version that was deleted. What is lost with all else is declared again.
func (a *applier) stillDeclared(ctx context.Context) (bool, error) {
	known, err := a.versions.Load(ctx, a.group.Name)
	if err != nil {
		return false, err
	}
	_, there := known[0].All[a.group.version.ID]
	return there || slices.Contains(a.targets(), a.group), nil
}

// fillLease is how long a filler that does not renew its lease keeps others from the work; fillAgain is when they ask again.
const (
	fillLease = 5 * time.Second
	fillAgain = 100 * time.Millisecond
)

// askForFill has a version filled by this process, unless it is at it, or another is. It gives what kept the last try from success.
func (s *Stage) askForFill(g *group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.filling {
		return nil
	}
	if err := g.fillFailed; err != nil {
		g.fillFailed = nil
		return err
	}
	g.filling = true
	s.background.Go(func() {
		ours, err := s.fillAlone(s.ctx, g, nil)
		if !ours && err == nil { // another process is at it
			select {
			case <-s.ctx.Done():
			case <-time.After(fillAgain):
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		g.filling = false
		if err != nil && s.ctx.Err() == nil {
			g.fillFailed = err
		}
	})
	return nil
}

// fillAlone fills a version when no other process does; when one does, it is not ours.
func (s *Stage) fillAlone(ctx context.Context, g *group, progress FillProgress) (ours bool, err error) {
	owner := rand.Text()
	ours, err = s.versions.TakeFilling(ctx, g.Name, g.version.ID, owner, fillLease)
	if err != nil || !ours {
		return ours, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		ticks := time.NewTicker(fillLease / 5)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
				if ours, err := s.versions.TakeFilling(ctx, g.Name, g.version.ID, owner, fillLease); err == nil && !ours {
					cancel(failure.New(failure.Conflict, g.Name, "another process fills version %s", g.version.ID))
				}
			}
		}
	}()
	err = s.fill(ctx, g, progress)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	cancel(nil)
	<-renewed
	if s.dead() {
		return true, err
	}
	leaving, done := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer done()
	if left := s.versions.LeaveFilling(leaving, g.Name, g.version.ID, owner); left != nil {
		s.log.Warn("leaving the lease to fill", "group", g.Name, "error", left) // it expires
	}
	return true, err
}
