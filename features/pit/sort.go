package pit

import (
	"bufio"
	"cmp"
	"container/heap"
	"encoding/binary"
	"io"
	"os"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

// runRows is how many rows a sorted run holds.
const runRows = 1 << 17

// runBuffer is the memory with which a run on disk is read.
const runBuffer = 1 << 16

// spineRow is a row as it is sorted. entities is valid until the next one is asked for.
type spineRow struct {
	time, row int64
	entities  []uint32
}

// rowSorter sorts rows by (time, row): runs in memory up to the limit, further ones in a file.
type rowSorter struct {
	dir       string
	limit     int64
	entities  int // of a row
	n         int64
	ascending bool  // so far rows came in the order of time
	last      int64 // time added
	latest    int64 // of all times
	current   run
	runs      []run
	held      int64 // bytes of runs in memory
	file      *os.File
	written   int64
}

// run is sorted rows, in memory or in the file.
type run struct {
	times       []int64
	rows        []int64
	entities    []uint32
	sorted      bool
	first       int64 // time
	onDisk      bool
	offset, len int64 // bytes in the file
}

func (s *rowSorter) rowBytes() int64 { return 16 + 4*int64(s.entities) }

func (s *rowSorter) add(at int64, entities []uint32) error {
	if s.n == 0 {
		s.ascending, s.latest = true, at
	}
	s.latest = max(s.latest, at)
	if len(s.current.times) == 0 {
		s.current.sorted = true
		s.current.times = make([]int64, 0, runRows)
		s.current.rows = make([]int64, 0, runRows)
		s.current.entities = make([]uint32, 0, runRows*s.entities)
	}
	if s.n > 0 && at < s.last {
		s.ascending, s.current.sorted = false, len(s.current.times) == 0
	}
	s.last = at
	s.current.times = append(s.current.times, at)
	s.current.rows = append(s.current.rows, s.n)
	s.current.entities = append(s.current.entities, entities...)
	s.n++
	if len(s.current.times) == runRows {
		return s.endRun()
	}
	return nil
}

// endRun sorts the current run and keeps it.
func (s *rowSorter) endRun() error {
	r := s.current
	s.current = run{}
	if len(r.times) == 0 {
		return nil
	}
	if !r.sorted {
		r = r.sort(s.entities)
	}
	r.first = r.times[0]
	if size := s.rowBytes() * int64(len(r.times)); s.held+size > s.limit {
		var err error
		if r, err = s.spill(r); err != nil {
			return err
		}
	} else {
		s.held += size
	}
	s.runs = append(s.runs, r)
	return nil
}

func (r run) sort(width int) run {
	order := make([]int32, len(r.times))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Or(cmp.Compare(r.times[a], r.times[b]), cmp.Compare(a, b)) })
	out := run{times: make([]int64, len(order)), rows: make([]int64, len(order)), entities: make([]uint32, 0, len(r.entities))}
	for i, from := range order {
		out.times[i], out.rows[i] = r.times[from], r.rows[from]
		out.entities = append(out.entities, r.entities[int(from)*width:(int(from)+1)*width]...)
	}
	return out
}

// spill writes a run behind the others.
func (s *rowSorter) spill(r run) (run, error) {
	if s.file == nil {
		var err error
		if s.file, err = tempFile(s.dir, "millrace-rows-"); err != nil {
			return run{}, err
		}
	}
	b := make([]byte, 0, s.rowBytes()*int64(len(r.times)))
	for i := range r.times {
		b = binary.LittleEndian.AppendUint64(b, uint64(r.times[i]))
		b = binary.LittleEndian.AppendUint64(b, uint64(r.rows[i]))
		for _, id := range r.entities[i*s.entities : (i+1)*s.entities] {
			b = binary.LittleEndian.AppendUint32(b, id)
		}
	}
	if _, err := s.file.WriteAt(b, s.written); err != nil {
		return run{}, spillFailed(s.file.Name(), err)
	}
	out := run{first: r.first, onDisk: true, offset: s.written, len: int64(len(b))}
	s.written += int64(len(b))
	return out, nil
}

func (s *rowSorter) close() error {
	s.runs, s.current = nil, run{}
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// sorted hands out all rows by (time, row). Nothing can be added any more.
func (s *rowSorter) sorted() (*rowMerge, error) {
	if err := s.endRun(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(s.runs, func(a, b run) int { return cmp.Compare(a.first, b.first) })
	return &rowMerge{sorter: s, waiting: s.runs}, nil
}

// rowMerge merges runs. A run is opened when its first row may be next, so that of runs that follow one another one is open.
type rowMerge struct {
	sorter  *rowSorter
	waiting []run
	open    runHeap
	started bool
}

// next is the next row, io.EOF after the last.
func (m *rowMerge) next() (spineRow, error) {
	if m.started {
		more, err := m.open[0].advance()
		switch {
		case err != nil:
			return spineRow{}, err
		case more && len(m.open) > 1:
			heap.Fix(&m.open, 0)
		case !more:
			heap.Pop(&m.open)
		}
	}
	for len(m.waiting) > 0 && (len(m.open) == 0 || m.waiting[0].first <= m.open[0].time) {
		c := m.sorter.cursor(m.waiting[0])
		m.waiting = m.waiting[1:]
		if _, err := c.advance(); err != nil {
			return spineRow{}, err
		}
		heap.Push(&m.open, c)
	}
	if len(m.open) == 0 {
		m.started = false
		return spineRow{}, io.EOF
	}
	m.started = true
	return m.open[0].spineRow, nil
}

// runCursor is a place in an open run.
type runCursor struct {
	spineRow
	run
	at     int
	width  int
	reader *bufio.Reader // of a run on disk
	name   string
	bytes  []byte
}

func (s *rowSorter) cursor(r run) *runCursor {
	c := &runCursor{run: r, width: s.entities}
	if r.onDisk {
		c.name = s.file.Name()
		c.reader = bufio.NewReaderSize(io.NewSectionReader(s.file, r.offset, r.len), runBuffer)
		c.bytes = make([]byte, s.rowBytes())
		c.spineRow.entities = make([]uint32, s.entities)
	}
	return c
}

func (c *runCursor) advance() (bool, error) {
	if c.reader == nil {
		if c.at == len(c.times) {
			return false, nil
		}
		c.spineRow = spineRow{c.times[c.at], c.rows[c.at], c.run.entities[c.at*c.width : (c.at+1)*c.width]}
		c.at++
		return true, nil
	}
	if _, err := io.ReadFull(c.reader, c.bytes); err == io.EOF {
		return false, nil
	} else if err != nil {
		return false, spillFailed(c.name, err)
	}
	c.time, c.row = int64(binary.LittleEndian.Uint64(c.bytes)), int64(binary.LittleEndian.Uint64(c.bytes[8:]))
	for i := range c.spineRow.entities {
		c.spineRow.entities[i] = binary.LittleEndian.Uint32(c.bytes[16+4*i:])
	}
	return true, nil
}

type runHeap []*runCursor

func (h runHeap) Len() int { return len(h) }
func (h runHeap) Less(i, j int) bool {
	return h[i].time < h[j].time || h[i].time == h[j].time && h[i].row < h[j].row
}
func (h runHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)   { *h = append(*h, x.(*runCursor)) }
func (h *runHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// tempFile is a file without a name: it goes when it is closed, however the process ends.
func tempFile(dir, prefix string) (*os.File, error) {
	f, err := os.CreateTemp(dir, prefix)
	if err != nil {
		return nil, spillFailed(dir, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, spillFailed(dir, err)
	}
	return f, nil
}

func spillFailed(where string, err error) error {
	return failure.Wrap(failure.Unavailable, where, "keeping what does not fit in memory", err).
		WithHint("make room on the disk, name another folder for temporary files, or raise the memory limits")
}
