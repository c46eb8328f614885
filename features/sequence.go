package features

import "github.com/millrace/millrace/schemas"

// Sequence reads one entity at ascending times, between which events are folded in: what a replay does.
type Sequence struct {
	scratch Scratch
	group   *Group
	entity  *Entity
}

// Begin starts with an entity of the group.
func (s *Sequence) Begin(g *Group, e *Entity) { s.group, s.entity = g, e }

// Add is Group.Add.
func (s *Sequence) Add(row schemas.Row, t, seq int64) (Outcome, error) {
	return s.group.Add(s.entity, row, t, seq)
}

// Read is Group.ReadInto.
func (s *Sequence) Read(at int64, out []Result) []Result {
	return s.group.ReadInto(&s.scratch, s.entity, at, out)
}
