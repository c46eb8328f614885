package features

import (
	"math"
	"slices"
	"sync"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Always is the time from which a row without a time of its own is valid.
const Always = math.MinInt64

// Table is rows by key, each valid from a time until the next of its key: what events are looked up in, as of their own time. It is safe
// for concurrent use.
type Table struct {
	name    string
	maxRows int

	mu       sync.RWMutex
	versions map[string][]version // ascending in time
	rows     int
}

// version is a row from a time on; nil says that there is none from then on.
type version struct {
	from int64
	row  schemas.Row
}

// NewTable is an empty table of at most maxRows rows, all versions of all keys together.
func NewTable(name string, maxRows int) *Table {
	return &Table{name: name, maxRows: maxRows, versions: map[string][]version{}}
}

// Put adds the row that a key has from a time on (Unix milliseconds, or Always), or takes the place of the one that it had from that very
// time; nil ends the one before. Beyond the table's rows it is Refused and nothing changes.
func (t *Table) Put(key string, from int64, row schemas.Row) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	versions := t.versions[key]
	i, replaces := slices.BinarySearchFunc(versions, from, func(v version, from int64) int {
		switch {
		case v.from < from:
			return -1
		case v.from > from:
			return 1
		}
		return 0
	})
	if replaces {
		versions[i].row = slices.Clone(row)
		return nil
	}
	if t.rows >= t.maxRows {
		return failure.New(failure.Refused, t.name, "the table has more than max_rows = %d rows", t.maxRows).
			WithHint("raise max_rows of the table, if there is memory for it, or keep fewer versions")
	}
	t.rows++
	t.versions[key] = slices.Insert(versions, i, version{from, slices.Clone(row)})
	return nil
}

// At is the row of a key that is valid at a time; false where there is none.
func (t *Table) At(key string, at int64) (schemas.Row, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	versions := t.versions[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if versions[i].from <= at {
			return versions[i].row, versions[i].row != nil
		}
	}
	return nil, false
}

// Len is the number of rows, all versions of all keys.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.rows
}

// Become takes over the rows of another table at once. The other is not to be used afterwards.
func (t *Table) Become(other *Table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.versions, t.rows = other.versions, other.rows
}
