package offline

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/internal/idle"
	"github.com/millrace/millrace/schemas"
)

// Table is one folder of the offline log: the rows of one source or of one feature group. It is safe for concurrent use, and any number
// of processes may have the same folder open.
type Table struct {
	dir     string
	columns []Column        // that are in its files
	events  *schemas.Schema // of a source's events, for the columns computed as they are read; else nil
	schema  *arrow.Schema
	files   *arrowFiles
	disk    disk

	mu     sync.Mutex
	chains map[int32]chain // what has been read of each partition's log

	segments idle.Memory[*segment]
}

// OpenTable opens the table in dir, which need not exist yet. Files written with other columns stay readable: a column that a file does
// not have reads as null.
func OpenTable(dir string, columns []Column) (*Table, error) {
	if err := checkColumns(dir, columns); err != nil {
		return nil, err
	}
	columns = slices.Clone(columns)
	return &Table{dir: dir, columns: columns, schema: arrowSchema(columns), files: newArrowFiles(), disk: osDisk{}, chains: map[int32]chain{},
		segments: idle.Memory[*segment]{Most: idleSegments}}, nil
}

// EventsTable is the table of a source's accepted events, <root>/events/<source>, with the schema's columns. Those that the schema computes
// are not in its files, but computed as they are read: so they mean what the schema says now, whenever the event was written.
func EventsTable(root, source string, s *schemas.Schema) (*Table, error) {
	columns := columnsOf(s)
	t, err := OpenTable(filepath.Join(root, "events", source), columns[:s.Stored()])
	if err == nil && s.Stored() < len(columns) {
		t.events, err = s, checkColumns(t.dir, columns)
	}
	return t, err
}

func columnsOf(s *schemas.Schema) []Column {
	columns := make([]Column, len(s.Columns))
	for i, c := range s.Columns {
		columns[i] = Column{Name: c.Name, Kind: c.Kind}
	}
	return columns
}

// Dir is the table's folder.
func (t *Table) Dir() string { return t.dir }

// Columns are the columns that can be read, without _time, _partition and _offset.
func (t *Table) Columns() []Column {
	if t.events != nil {
		return columnsOf(t.events)
	}
	return slices.Clone(t.columns)
}

// Next is the offset up to which a partition is committed: the first one that is still wanted. It is 0 where nothing is.
func (t *Table) Next(partition int32) (int64, error) {
	c, err := t.chain(partition)
	return c.end(), err
}

// Partitions are the partitions that have a log, ascending.
func (t *Table) Partitions() ([]int32, error) {
	names, err := os.ReadDir(filepath.Join(t.dir, logDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "", "reading offline log", err)
	}
	var partitions []int32
	for _, name := range names {
		if p, err := strconv.ParseInt(name.Name(), 10, 32); err == nil && p >= 0 {
			partitions = append(partitions, int32(p))
		}
	}
	slices.Sort(partitions)
	return partitions, nil
}

// Stats is the size of a table.
type Stats struct {
	Rows, Bytes    int64
	Files, Commits int
	From, Until    int64           // event time of the first row and one past that of the last, Unix ms; both 0 in an empty table
	Newest         map[int32]int64 // event time of the last row of each partition that has rows
}

// Stats adds up the table's commits; it opens no data file.
func (t *Table) Stats() (Stats, error) {
	s := Stats{Newest: map[int32]int64{}}
	partitions, err := t.Partitions()
	if err != nil {
		return s, err
	}
	for _, p := range partitions {
		c, err := t.chain(p)
		if err != nil {
			return s, err
		}
		for i := range c.entries {
			s.add(&c.entries[i])
		}
	}
	return s, nil
}

func (s *Stats) add(e *entry) {
	if !e.Claim {
		s.Commits++
	}
	for _, f := range e.Files {
		if s.Files == 0 || f.From < s.From {
			s.From = f.From
		}
		if s.Files == 0 || f.Until > s.Until {
			s.Until = f.Until
		}
		if newest, ok := s.Newest[e.Partition]; !ok || f.Until-1 > newest {
			s.Newest[e.Partition] = f.Until - 1
		}
		s.Files++
		s.Rows += f.Rows
		s.Bytes += f.Bytes
	}
}
