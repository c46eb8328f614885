package serving

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// deployment is one model of the project as it is served: which versions answer now, and the change from one to the next.
//
// Requests take the line-up once, by one atomic load, and finish with it, so that a swap neither waits for them nor disturbs them. Only
// look writes it, under mu.
type deployment struct {
	model    *project.Model
	plan     *plan // of the project's definitions
	registry *registry.Registry
	warmUp   int
	clock    clock.Clock
	log      *slog.Logger
	metrics  *metrics
	http     *modelMetrics
	stream   *modelMetrics
	reader   *requestReader
	catalog  *catalog

	live atomic.Pointer[lineUp] // never nil
	tell func(schemas.ModelEvent)

	mu        sync.Mutex
	fault     atomic.Pointer[fault]
	armFaults map[string]int // by alias, the history entry of an arm that cannot be served; of look
	first     chan struct{}  // closed when there is a champion
}

// lineUp is the versions that may answer. It does not change.
type lineUp struct {
	plan     *plan   // of the champion's inputs
	champion *scorer // nil before the first
	previous *scorer // the champion before it; nil when there is none that can be served, or the project does not ask for it
	simpler  *scorer // trained beside the champion on the request's own columns; nil likewise
	since    int64   // wall time of the swap

	// standsIn names the champion that could not be served when the process began, and nobody had answered before; empty otherwise. champion and
	// previous are then the one before it, which answers on the rung "previous".
	standsIn string

	challenger, shadow *arm    // nil without one
	beside             []*plan // of the arms, where they read other versions of the features
}

// fault is the champion of the registry that does not serve.
type fault struct {
	digest   string
	err      error
	versions *servable // there were then
}

func newDeployment(m *project.Model, p *plan, versions *catalog, r *registry.Registry, warmUp int, c clock.Clock, log *slog.Logger, mt *metrics) *deployment {
	reader := newRequestReader(m.On.Schema)
	reader.source = m.On
	reader.fetched = map[string]fetchedInput{}
	for _, in := range fetchedInputs(m) {
		reader.fetched[in.column.Name] = in
	}
	d := &deployment{
		model: m, plan: p, catalog: versions, registry: r, warmUp: warmUp, clock: c, log: log, metrics: mt, reader: reader,
		http: mt.of(m.Name, sourceHTTP, p.inputs), stream: mt.of(m.Name, sourceStream, p.inputs), first: make(chan struct{}),
		armFaults: map[string]int{}, tell: func(schemas.ModelEvent) {},
	}
	d.live.Store(&lineUp{plan: p})
	mt.version.WithLabelValues(m.Name).Set(0)
	return d
}

// look brings the line-up to what the registry's champion alias says. A version that fails its checks changes nothing: who answers
// now goes on, and the error says what is wrong with the other.
func (d *deployment) look(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	history, err := d.registry.History(d.model.Name)
	if err != nil {
		return err
	}
	defer d.showDegraded()
	line, err := d.succession(history)
	now := d.live.Load()
	switch {
	case line != nil:
		if c := now.challenger; c != nil && c.withdrawn.Load() != nil { // the registry is still to be told
			line.challenger = c
		}
		d.arms(ctx, history, line)
		d.swap(line)
	case now.champion != nil:
		same := *now
		if d.arms(ctx, history, &same) {
			d.live.Store(&same)
		}
	}
	return err
}

// succession is the line-up of a champion that is not live yet, without arms; nil when there is none, or it cannot be served.
func (d *deployment) succession(history []registry.Entry) (*lineUp, error) {
	digest, before := champions(history)
	now := d.live.Load()
	if digest == "" || now.champion != nil && now.champion.digest == digest && now.standsIn == "" {
		d.fault.Store(nil)
		return nil, nil
	}
	// What is wrong with an artefact stays wrong: it is not loaded at every look. An artefact that could not be read is.
	// Nor is one again that lacks a version of the features, until there are others.
	if f := d.fault.Load(); f != nil && f.digest == digest && f.versions == d.catalog.now.Load() && !failure.Of(f.err).Retry() {
		return nil, nil
	}
	champion, err := d.scorer(history, digest)
	if err != nil {
		err = fmt.Errorf("%s@%d %s: %w", d.model.Name, numberOf(history, digest), digest, err)
		again := d.fault.Load()
		known := again != nil && again.digest == digest && again.err.Error() == err.Error()
		if !known && !failure.Of(err).Retry() {
			d.metrics.swaps.WithLabelValues(d.model.Name, "refused").Inc() // before it is shown, so that who sees it finds it counted
		}
		d.fault.Store(&fault{digest, err, d.catalog.now.Load()})
		line := d.standIn(now, history, digest, before)
		if known {
			return line, nil
		}
		return line, err
	}
	return &lineUp{
		plan: champion.plan, champion: champion, previous: d.predecessor(history, champion, before), simpler: d.simpler(champion), since: d.clock().UnixMilli(),
	}, nil
}

func (d *deployment) swap(line *lineUp) {
	champion := line.champion
	d.metrics.version.WithLabelValues(d.model.Name).Set(float64(champion.version))
	if line.standsIn != "" {
		d.live.Store(line)
		d.log.Warn("the previous champion stands in", "model", d.model.Name, "version", champion.version, "digest", champion.digest, "for", line.standsIn)
	} else {
		d.metrics.swaps.WithLabelValues(d.model.Name, "swapped").Inc() // before it answers, likewise
		d.live.Store(line)
		d.fault.Store(nil)
		d.log.Info("champion is live", "model", d.model.Name, "version", champion.version, "digest", champion.digest)
	}
	select {
	case <-d.first:
	default:
		close(d.first)
	}
}

// standIn is the line-up of a process that begins with a champion that it cannot serve: the one before it answers, where the project has that
// rung. nil when somebody answers already, or there is nobody.
func (d *deployment) standIn(now *lineUp, history []registry.Entry, refused, before string) *lineUp {
	if now.champion != nil || before == "" || !d.fallsTo(project.RungPrevious) {
		return nil
	}
	s, err := d.scorer(history, before)
	if err != nil {
		d.log.Warn("the previous champion cannot stand in", "model", d.model.Name, "digest", before, "error", err)
		return nil
	}
	name := fmt.Sprintf("%s@%d", d.model.Name, numberOf(history, refused))
	return &lineUp{plan: s.plan, champion: s, previous: s, simpler: d.simpler(s), since: d.clock().UnixMilli(), standsIn: name}
}

// degraded reports whether somebody answers who is not the registry's champion.
func (d *deployment) degraded() bool { return d.fault.Load() != nil && d.live.Load().champion != nil }

func (d *deployment) showDegraded() {
	value := 0.0
	if d.degraded() {
		value = 1
	}
	d.metrics.degraded.WithLabelValues(d.model.Name).Set(value)
}

// predecessor is the champion before, nil when it cannot be served: then there is one rung less, which is no reason not to swap.
// So it is when it was trained on other versions of the features, as only one is read for a request.
func (d *deployment) predecessor(history []registry.Entry, champion *scorer, digest string) *scorer {
	if digest == "" || !d.fallsTo(project.RungPrevious) {
		return nil
	}
	s, err := d.scorer(history, digest)
	if err != nil {
		d.log.Warn("the previous champion cannot stand in", "model", d.model.Name, "digest", digest, "error", err)
		return nil
	}
	if s.plan != champion.plan {
		d.log.Info("the previous champion reads other versions of the features", "model", d.model.Name, "digest", digest)
		return nil
	}
	return s
}

// simpler is the model that was trained beside the champion, nil when it has none that can be served. It reads no group, so that any plan
// with the request's columns serves it: it is of the champion's.
func (d *deployment) simpler(champion *scorer) *scorer {
	if champion.beside == "" || !d.fallsTo(project.RungSimpler) {
		return nil
	}
	ofChampion := func([]model.SignatureInput) (*plan, error) { return champion.plan, nil }
	s, err := loadScorer(d.registry, ofChampion, champion.beside, champion.version, d.warmUp)
	if err != nil {
		d.log.Warn("the simpler model cannot stand in", "model", d.model.Name, "digest", champion.beside, "error", err)
		return nil
	}
	return s
}

// fallsTo reports whether the project has a rung of the kind.
func (d *deployment) fallsTo(kind string) bool {
	return slices.ContainsFunc(d.model.Serve.Fallback, func(r project.Rung) bool { return r.Kind == kind })
}

// scorer takes a version that is loaded already from the line-up, and another from the registry.
func (d *deployment) scorer(history []registry.Entry, digest string) (*scorer, error) {
	now := d.live.Load()
	for _, s := range []*scorer{now.champion, now.previous, now.challenger.of(), now.shadow.of()} {
		if s != nil && s.digest == digest {
			return s, nil
		}
	}
	return loadScorer(d.registry, d.planFor, digest, numberOf(history, digest), d.warmUp)
}

// numberOf is the number of a version; 0 when the history does not have it.
func numberOf(history []registry.Entry, digest string) (version int) {
	for _, e := range history {
		if e.Kind == registry.EntryVersion && e.Digest == digest {
			version = e.Version
		}
	}
	return version
}

// champions reads from a model's history what the alias names now and what it named before. A move that was rolled back has not
// happened: the version rolled back from must not stand in for anybody.
func champions(history []registry.Entry) (now, before string) {
	var stack []string
	for _, e := range history {
		switch {
		case e.Alias != registry.Champion:
		case e.Kind == registry.EntryRolledBack && len(stack) > 1:
			stack = stack[:len(stack)-1]
		default:
			stack = append(stack, e.Digest)
		}
	}
	if len(stack) > 0 {
		now = stack[len(stack)-1]
	}
	if len(stack) > 1 {
		before = stack[len(stack)-2]
	}
	return now, before
}

// awaitChampion waits for the first champion; nil when ctx ended first.
func (d *deployment) awaitChampion(ctx context.Context) *scorer {
	select {
	case <-d.first:
		return d.live.Load().champion
	case <-ctx.Done():
		return nil
	}
}

// faultText says why the registry's champion is not the one that answers; empty when it is.
func (d *deployment) faultText() string {
	if f := d.fault.Load(); f != nil {
		return f.err.Error()
	}
	return ""
}
