package features

import (
	"fmt"
	"time"
)

// FeatureDefinition is one declared feature of a group: an aggregate over one or more windows.
type FeatureDefinition struct {
	Name      string
	Aggregate string   // a call such as "mean(delay)", "count()", "quantile(delay, 0.95)"; the argument is an Expression
	Windows   []string // "90s", "1h", "7d", "lifetime"; nil takes the group's
	Where     string   // a condition on the row, in addition to the group's; empty takes all rows
	Default   *float64 // value of an empty window instead of null
	Line      int      // line in the project file, for messages
}

// Definition is one declared feature group: one entity, one source, one state per entity.
type Definition struct {
	Name, Source string
	Entity       []string      // columns whose values together name the entity
	Where        string        // a condition on the row; empty takes all rows
	Windows      []string      // of features that name none
	Lateness     time.Duration // how far before an entity's newest event the declared tile widths still hold
	Future       time.Duration // guard against event times ahead of the clock, kept by the stage; 0 = none
	TTL          time.Duration // an entity without an event for longer is read as Expired; 0 = never
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
