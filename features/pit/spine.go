package pit

import (
	"fmt"
	"math"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Lookup is a feature group read by one choice of the spine's columns.
type Lookup struct {
	Group   *features.Group
	Source  int   // index of the group's events among the sources of Join
	Outputs []int // indices in Group.Outputs of the values wanted, in the order wanted
	// Own, where it is set, makes of a row, by its number, its own event of the group's source, in the memory of into: it is merged into what
	// is read for the row, at the row's time (features.Group.ReadWith). False says that the source takes no such event. Goroutines call it
	// at the same time.
	Own func(row int64, into schemas.Row) (schemas.Row, bool)
}

// Spine is the rows to be filled. It is for one goroutine: Add every row, then Join once, then Close.
type Spine struct {
	cfg     Config
	lookups []Lookup
	groups  []*groupKeys // each group once
	of      []int        // group of each lookup
	rows    rowSorter
	row     []uint32 // entities of the row being added
}

// groupKeys numbers the entities that rows ask for. 0 is none.
type groupKeys struct {
	group   *features.Group
	source  int
	lookups []int
	ids     map[string]uint32
}

// NewSpine makes an empty spine whose rows are read by the lookups.
func NewSpine(cfg Config, lookups []Lookup) (*Spine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, failure.Wrap(failure.BadRequest, "", "checking the limits of the join", err)
	}
	s := &Spine{cfg: cfg, lookups: lookups, row: make([]uint32, len(lookups))}
	index := map[*features.Group]int{}
	for i, l := range lookups {
		at, ok := index[l.Group]
		if !ok {
			at = len(s.groups)
			index[l.Group] = at
			s.groups = append(s.groups, &groupKeys{group: l.Group, source: l.Source, ids: map[string]uint32{}})
		}
		if s.groups[at].source != l.Source {
			return nil, failure.New(failure.Internal, l.Group.Name, "two lookups of a group replay different events")
		}
		s.groups[at].lookups = append(s.groups[at].lookups, i)
		s.of = append(s.of, at)
	}
	s.rows = rowSorter{dir: s.cfg.TempDir, limit: s.cfg.MaxRowBytes, entities: len(lookups)}
	return s, nil
}

// Add adds a row: its time in Unix milliseconds and for each lookup the key of its entity as features.Group.Key makes it,
// empty where the row names none. Keys are copied. Rows are numbered from 0 as they are added.
func (s *Spine) Add(at int64, keys []string) error {
	for i, key := range keys {
		if key == "" {
			s.row[i] = 0
			continue
		}
		g := s.groups[s.of[i]]
		id, ok := g.ids[key]
		if !ok {
			if len(g.ids) == math.MaxUint32-1 {
				return failure.New(failure.Refused, g.group.Name, "the spine has more than %d entities", len(g.ids))
			}
			id = uint32(len(g.ids) + 1)
			g.ids[strings.Clone(key)] = id
		}
		s.row[i] = id
	}
	if err := s.rows.add(at, s.row); err != nil {
		return fmt.Errorf("sorting the spine's rows: %w", err)
	}
	return nil
}

// Len is the number of rows.
func (s *Spine) Len() int64 { return s.rows.n }

// InOrder reports whether rows were added in the order of time, so that blocks number them 0, 1, 2 and so on.
func (s *Spine) InOrder() bool { return s.rows.ascending || s.rows.n == 0 }

// Entities is how many different entities the rows name for a lookup's group.
func (s *Spine) Entities(lookup int) int { return len(s.groups[s.of[lookup]].ids) }

// Close removes what lies on disk.
func (s *Spine) Close() error { return s.rows.close() }
