package online

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

// SourcePartition is a partition of a source's topic.
type SourcePartition struct {
	Source    string
	Partition int32
}

// Position is how far a partition of a group has come.
type Position struct {
	Next   int64 // offset of the first record not yet applied
	Newest int64 // newest event time applied, Unix milliseconds; 0 when there is none

	// Until is the offset that the partition had come to before its states were lost, while it is computed again from its topic's start; 0
	// when it is whole, or nothing is known to be missing.
	Until int64

	// Sources is, for every source partition that records were re-keyed from, the highest source offset applied. A re-keyed record at
	// or below it is a duplicate. Nil for a group that reads its source directly.
	Sources map[SourcePartition]int64

	// SourceTimes is the newest event time (Unix milliseconds) among what was applied of source partitions. A partition of Sources that is
	// not in it has applied nothing since they were first kept, which they are under clock: event.
	SourceTimes map[SourcePartition]int64
}

// Untouched reports whether no record was ever applied, so that there are no states either.
func (p *Position) Untouched() bool {
	return p.Next == 0 && p.Newest == 0 && p.Until == 0 && len(p.Sources) == 0
}

// Filling is the Next of a partition that is being filled from its source's history, of which no offset of its topic says how far it is.
const Filling = -1

// Rebuilding reports whether events that the partition once had are missing in its states: an entity without a state may well have had one.
func (p *Position) Rebuilding() bool { return p.Next < p.Until || p.Next == Filling }

// The first byte of every encoded position: one, and what else it has.
const (
	positionLayout = 1
	withTimes      = 1 // SourceTimes
	withUntil      = 2
	positionParts  = withTimes | withUntil
)

// AppendBinary appends the position's encoding to b: the layout byte, Next and Newest as varints, the number of sources, and these in
// order of name and partition. With Until, it is a varint behind Newest. With SourceTimes, each source has the time as its distance from Newest, and
// one, as an unsigned varint; 0 is none. Equal positions have equal encodings.
func (p Position) AppendBinary(b []byte) []byte {
	timed, layout := len(p.SourceTimes) > 0, byte(positionLayout)
	if timed {
		layout += withTimes
	}
	if p.Until != 0 {
		layout += withUntil
	}
	b = append(b, layout)
	b = binary.AppendVarint(b, p.Next)
	b = binary.AppendVarint(b, p.Newest)
	if p.Until != 0 {
		b = binary.AppendVarint(b, p.Until)
	}
	b = binary.AppendUvarint(b, uint64(len(p.Sources)))
	sources := make([]SourcePartition, 0, len(p.Sources))
	for s := range p.Sources {
		sources = append(sources, s)
	}
	slices.SortFunc(sources, func(a, b SourcePartition) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Partition, b.Partition))
	})
	for _, s := range sources {
		b = binary.AppendUvarint(b, uint64(len(s.Source)))
		b = append(b, s.Source...)
		b = binary.AppendUvarint(b, uint64(uint32(s.Partition)))
		b = binary.AppendVarint(b, p.Sources[s])
		if !timed {
			continue
		}
		if at, known := p.SourceTimes[s]; known {
			b = binary.AppendUvarint(b, uint64(p.Newest-at)+1)
		} else {
			b = append(b, 0)
		}
	}
	return b
}

// DecodePosition reads what AppendBinary wrote; no bytes at all are the position before the first record. Anything else is Corrupt.
func DecodePosition(b []byte) (Position, error) {
	if len(b) == 0 {
		return Position{}, nil
	}
	r := positionBytes{rest: b[1:]}
	parts := b[0] - positionLayout
	timed := parts&withTimes != 0
	if parts > positionParts {
		r.failed = true
	}
	p := Position{Next: r.varint(), Newest: r.varint()}
	if parts&withUntil != 0 {
		p.Until = r.varint()
		r.failed = r.failed || p.Until == 0
	}
	n := r.uvarint()
	if n > uint64(len(r.rest)) { // each source takes more than a byte
		r.failed = true
	}
	for i := uint64(0); i < n && !r.failed; i++ {
		if p.Sources == nil {
			p.Sources = make(map[SourcePartition]int64, n)
		}
		name := r.text()
		partition := int32(r.uvarint())
		p.Sources[SourcePartition{name, partition}] = r.varint()
		if !timed {
			continue
		}
		if behind := r.uvarint(); behind > 0 {
			if p.SourceTimes == nil {
				p.SourceTimes = make(map[SourcePartition]int64, n)
			}
			p.SourceTimes[SourcePartition{name, partition}] = p.Newest - int64(behind-1)
		}
	}
	if r.failed || len(r.rest) != 0 || uint64(len(p.Sources)) != n || timed && p.SourceTimes == nil {
		return Position{}, failure.New(failure.Corrupt, "position", "%d bytes that are no position", len(b)).
			WithHint("delete the group's keys in Redis: it is rebuilt from the log")
	}
	return p, nil
}

type positionBytes struct {
	rest   []byte
	failed bool
}

func (r *positionBytes) advance(n int) {
	if n <= 0 {
		r.failed, r.rest = true, nil
		return
	}
	r.rest = r.rest[n:]
}

func (r *positionBytes) varint() int64 {
	v, n := binary.Varint(r.rest)
	r.advance(n)
	return v
}

func (r *positionBytes) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.advance(n)
	return v
}

func (r *positionBytes) text() string {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.failed = true
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}
