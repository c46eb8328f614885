package project

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Sources and groups are made of each other: a source may be merged of others or be what a group gives out, and a group reads a source.
// So each is resolved when it is first named, and what comes back to itself on that way is refused.
type resolving struct {
	sources, groups map[string]*declaration
	path            []string // what is being resolved, outermost first: "source a", "feature group b"
}

// declaration is a source or group of the file.
type declaration struct {
	entry entry
	order int
	begun bool
}

func declarations(entries []entry) map[string]*declaration {
	all := make(map[string]*declaration, len(entries))
	for i, e := range entries {
		if _, twice := all[e.key]; !twice {
			all[e.key] = &declaration{entry: e, order: i}
		}
	}
	return all
}

// namesOf are the names declared, in the order of the file.
func namesOf(declared map[string]*declaration) []string {
	return slices.SortedFunc(maps.Keys(declared), func(a, b string) int { return cmp.Compare(declared[a].order, declared[b].order) })
}

// resolveAll resolves what the file declares, and puts it in the order of the file.
func (l *loader) resolveAll(sources, groups []entry) {
	l.resolving = resolving{sources: declarations(sources), groups: declarations(groups)}
	for _, e := range sources {
		l.resolveSource(e.key)
	}
	for _, e := range groups {
		l.resolveGroup(e.key)
	}
	slices.SortStableFunc(l.project.Sources, func(a, b *Source) int {
		return cmp.Compare(l.resolving.sources[a.Name].order, l.resolving.sources[b.Name].order)
	})
	slices.SortStableFunc(l.project.Groups, func(a, b *Group) int {
		return cmp.Compare(l.resolving.groups[a.Name].order, l.resolving.groups[b.Name].order)
	})
}

func (l *loader) resolveSource(name string) {
	d := l.resolving.sources[name]
	if d == nil || d.begun {
		return
	}
	d.begun = true
	l.resolving.path = append(l.resolving.path, "source "+name)
	s := l.source(d.entry)
	l.resolving.path = l.resolving.path[:len(l.resolving.path)-1]
	if s.Schema == nil {
		l.badSources[s.Name] = true
	}
	l.project.Sources = append(l.project.Sources, s)
}

func (l *loader) resolveGroup(name string) {
	d := l.resolving.groups[name]
	if d == nil || d.begun {
		return
	}
	d.begun = true
	l.resolving.path = append(l.resolving.path, "feature group "+name)
	g := l.group(d.entry)
	l.resolving.path = l.resolving.path[:len(l.resolving.path)-1]
	if g == nil {
		l.badGroups[name] = true
		return
	}
	l.project.Groups = append(l.project.Groups, g)
}

// cycle refuses to resolve what is being resolved already.
func (l *loader) cycle(at value, what string) bool {
	i := slices.Index(l.resolving.path, what)
	if i < 0 {
		return false
	}
	way := append(slices.Clone(l.resolving.path[i:]), what)
	l.faultAt(at, "", "%s is made of itself: %s", what, strings.Join(way, " reads "))
	return true
}
