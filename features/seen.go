package features

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/schemas"
)

// Bounds of what an entity remembers to tell repeated records.
const (
	DefaultDedupMost   = 1_000
	MaxDedup           = 1 << 14
	DefaultDedupWithin = time.Hour
)

// dedup finds an entity's repeated records by name. A record is a repetition when one of the same name and entity was
// applied with an event time no further before the entity's newest than within. The names are kept as 64-bit hashes, so
// that one of n new records is taken for another with a chance below n*most/2^64. Of more names than most the oldest in
// event time are forgotten: a repetition of those counts again, and so does one of an event older than within. A record
// without a name is always applied.
type dedup struct {
	name   *Expression
	within int64
	most   int
}

// seen is the names of an entity's events in ascending event time.
type seen struct {
	times  []int64
	hashes []uint64
}

// nameOf hashes the name of a row's record; false when it has none.
func (d *dedup) nameOf(row schemas.Row) (hash uint64, ok bool) {
	v := d.name.value(row)
	switch v.Kind() {
	case schemas.Null:
		return 0, false
	case schemas.String, schemas.Bytes:
		return xxhash.Sum64String(v.Str()), true
	default:
		bits := uint64(v.Int())
		if v.Kind() == schemas.Float {
			f, _ := v.Float()
			bits = math.Float64bits(f + 0) // -0 is 0
		}
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], bits)
		return xxhash.Sum64(b[:]), true
	}
}

func (d *dedup) repeats(e *Entity, hash uint64) bool {
	return e.seen != nil && slices.Contains(e.seen.hashes, hash)
}

// appliedAt is the event time that a name was applied with; false when it was not, or is forgotten. s may be nil.
func (s *seen) appliedAt(name uint64) (int64, bool) {
	if s == nil {
		return 0, false
	}
	if i := slices.Index(s.hashes, name); i >= 0 {
		return s.times[i], true
	}
	return 0, false
}

// remember keeps a name that was applied, and forgets what is too old or too much.
func (d *dedup) remember(e *Entity, hash uint64, t int64) {
	from := e.newest - d.within
	if t < from {
		return
	}
	if e.seen == nil {
		e.seen = &seen{}
	}
	s := e.seen
	at, _ := slices.BinarySearch(s.times, t+1)
	s.times = slices.Insert(s.times, at, t)
	s.hashes = slices.Insert(s.hashes, at, hash)
	old, _ := slices.BinarySearch(s.times, from)
	if old = max(old, len(s.times)-d.most); old > 0 {
		s.times = slices.Delete(s.times, 0, old)
		s.hashes = slices.Delete(s.hashes, 0, old)
	}
}
