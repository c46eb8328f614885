package features

import (
	"fmt"
	"time"
)

// FeatureDefinition is one declared feature of a group: an aggregate over one or more windows.
type FeatureDefinition struct {
	Name      string
	Aggregate string   // a call such as "mean(delay)", "count()", "ratio(sum(a), count())"; arguments are Expressions
	Windows   []string // "90s", "1h exact", "7d ending 1d ago", "24h error 1/240", "lifetime"; nil takes the group's
	Where     string   // a condition on the row, in addition to the group's; empty takes all rows
	Default   *float64 // value of an empty window instead of null
	By        string   // an expression whose values are categories: the feature is a map of one value for each
	Most      int      // categories kept; 0 = DefaultCategories
	Exact     bool     // every window of the feature is exact
	Line      int      // line in the project file, for messages
}

// Edge is where windows end.
type Edge uint8

// The edges of windows.
const (
	EdgeNow   Edge = iota // the time of reading
	EdgeEvent             // just after the entity's newest event before it
)

func (e Edge) String() string { return [...]string{"now", "event"}[e] }

// DedupDefinition says how an entity's repeated records are found.
type DedupDefinition struct {
	By     string        // an expression whose value names the record
	Within time.Duration // of event time before the entity's newest event, in which names are remembered
	Most   int           // names remembered; 0 = DefaultDedupMost
}

// Definition is one declared feature group: one entity, one source, one state per entity.
type Definition struct {
	Name, Source string
	Entity       []string         // columns whose values together name the entity
	Where        string           // a condition on the row; empty takes all rows
	Windows      []string         // of features that name none
	Tiles        int              // a window's tile is at most this fraction of it, unless the window says; 0 = TilesPerWindow
	Exact        bool             // every window but lifetime is exact
	ExactEvents  int              // event times kept for exact windows; 0 = DefaultExactEvents
	Edge         Edge             // where windows end
	Dedup        *DedupDefinition // nil applies every record
	Lateness     time.Duration    // how far before an entity's newest event the declared tile widths still hold
	Future       time.Duration    // guard against event times ahead of the clock, kept by the stage; 0 = none
	Materialize  bool             // the stage writes the current values beside the state; a version of its own, so that every entity has them
	TTL          time.Duration    // an entity without an event for longer is read as Expired; 0 = never
	Features     []FeatureDefinition
	Line         int // line in the project file, for messages
}

// DefinitionError is one fault of a Definition.
type DefinitionError struct {
	Line    int
	Feature string // empty where the fault is the group's
	Msg     string
}

func (e *DefinitionError) Error() string {
	if e.Feature == "" {
		return e.Msg
	}
	return fmt.Sprintf("feature %s: %s", e.Feature, e.Msg)
}
