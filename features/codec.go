package features

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

// A stored state is, in this order:
//
//	1 byte    layout version
//	4 bytes   fingerprint of the group's version
//	a block   (pack.go) newest event time + maxTime (0 for no events), how much older the oldest one was, the number of
//	          words that all growing states take in memory, where exact tiles begin + maxTime (0 for nowhere), the number
//	          of tiles of each level from fine to coarse, then of the remainder
//	          of the remainder and of each level from coarse to fine, where there are tiles, the oldest first:
//	columns   (column.go) the codes of all columns, then each one's words: the tile's start in tiles since the level's
//	          cut, its newest event time less its start, the words of the fixed states. Of the remainder 0 and how much
//	          older than the newest event it is for the times
//	columns   of each growing state how many words it packs itself into; then of each a block with the words of all tiles
//	          of a group with dedup:
//	a block   the number of names
//	columns   how much older than the newest event each is, and its hash
//	4 bytes   CRC-32C of all before
//
// It depends on the events and their order alone. Fixed states are read where they lie (stored.go): the words that a read
// needs are loaded, the others are not looked at.
const (
	stateHeader   = 1 + 4
	stateChecksum = 4
	headerWords   = 4 // before the numbers of tiles
)

// AppendBinary appends the encoded state to b.
func (e *Entity) AppendBinary(b []byte) []byte {
	g := e.group
	first := len(b)
	b = append(b, layoutVersion)
	b = binary.LittleEndian.AppendUint32(b, g.fingerprint)
	b = e.appendHeader(b)
	at := 0
	for l := len(g.levels); l >= 0; l-- {
		if n := int(e.counts[l]); n > 0 {
			b = e.appendTiles(b, l, at, at+n)
			at += n
		}
	}
	if g.dedup != nil {
		b = e.seen.append(b, e.newest)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[first:], g.checksum))
}

func (e *Entity) appendHeader(b []byte) []byte {
	var header [headerWords + maxLevels + 1]uint64
	if e.newest != noTime {
		header[0], header[1] = uint64(e.newest+maxTime), uint64(e.newest-e.oldest)
	}
	for _, x := range e.growing {
		header[2] += uint64(x.words)
	}
	if e.exactFrom != noTime {
		header[3] = uint64(e.exactFrom + maxTime)
	}
	for l := range len(e.group.levels) + 1 {
		header[headerWords+l] = uint64(e.counts[l])
	}
	return appendWords(b, header[:headerWords+len(e.group.levels)+1]...)
}

// appendTiles appends the tiles from..until, all those of a level.
func (e *Entity) appendTiles(b []byte, level, from, until int) []byte {
	g := e.group
	rows, stride, n := e.words[from*g.stride:until*g.stride], g.stride, until-from
	times := e.timesOf(level)
	codes := len(b)
	b = slices.Grow(b, codeBytes(stride)+8)[:codes+codeBytes(stride)]
	clear(b[codes:])
	for c := range stride {
		code := times.code(rows, c, stride)
		putCode(b[codes:], c, code)
		if code == 0 {
			continue
		}
		b = slices.Grow(b, byteLength(code, n)+8)
		for i := 0; i < len(rows); i += stride {
			w := rows[i+c]
			switch c {
			case rowStart:
				w = times.start(rows[i:])
			case rowNewest:
				w = times.newest(rows[i:])
			}
			b = appendColumnWord(b, code, w)
		}
	}
	if g.growing > 0 {
		b = g.appendGrowing(b, e.growing[from*g.growing:until*g.growing], e.arena)
	}
	return b
}

// tileTimes are what the times of a level's tiles are stored relative to.
type tileTimes struct {
	base, width int64
	rest        bool // base is the newest event time
}

func (e *Entity) timesOf(level int) tileTimes {
	if level == len(e.group.levels) {
		return tileTimes{base: e.newest, rest: true}
	}
	return tileTimes{base: e.group.levels[level].cut(e.newestTile()), width: e.group.levels[level].width}
}

func (t tileTimes) start(row []uint64) uint64 {
	if t.rest {
		return 0
	}
	return uint64((int64(row[rowStart]) - t.base) / t.width)
}

func (t tileTimes) newest(row []uint64) uint64 {
	if t.rest {
		return uint64(t.base - int64(row[rowNewest]))
	}
	return row[rowNewest] - row[rowStart]
}

// code is that of a column of rows.
func (t tileTimes) code(rows []uint64, c, stride int) byte {
	switch c {
	case rowStart: // they ascend
		return lowCode(t.start(rows[len(rows)-stride:]))
	case rowNewest:
		var all uint64
		for i := 0; i < len(rows); i += stride {
			all |= t.newest(rows[i:])
		}
		return columnCode(all)
	default:
		return columnCode(orOf(rows[c:], stride))
	}
}

// packer is memory to pack growing states in.
type packer struct {
	packed  []uint64 // of a slot's states, one after the other
	lengths []uint64 // of each state, packed
}

// appendGrowing appends the growing states of tiles, which lie as in Entity.
func (g *Group) appendGrowing(b []byte, states []extent, arena []uint64) []byte {
	p, _ := g.packers.Get().(*packer)
	if p == nil {
		p = &packer{}
	}
	defer g.packers.Put(p)
	codes := len(b)
	b = slices.Grow(b, codeBytes(g.growing)+8)[:codes+codeBytes(g.growing)]
	clear(b[codes:])
	for slot, s := range g.slots {
		p.packed, p.lengths = p.packed[:0], p.lengths[:0]
		for i := slot; i < len(states); i += g.growing {
			before := len(p.packed)
			if states[i].words > 0 {
				p.packed = s.pack(p.packed, states[i].of(arena))
			}
			p.lengths = append(p.lengths, uint64(len(p.packed)-before))
		}
		code := columnCode(orOf(p.lengths, 1))
		putCode(b[codes:], slot, code)
		b = slices.Grow(b, byteLength(code, len(p.lengths))+8)
		for _, n := range p.lengths {
			b = appendColumnWord(b, code, n)
		}
		b = appendWords(b, p.packed...)
	}
	return b
}

// append appends the names. s may be nil.
func (s *seen) append(b []byte, newest int64) []byte {
	if s == nil {
		return appendWords(b, 0)
	}
	b = appendWords(b, uint64(len(s.times)))
	if len(s.times) == 0 {
		return b
	}
	age := columnCode(uint64(newest - s.times[0]))
	if age > 8 {
		age = lowCode(uint64(newest - s.times[0]))
	}
	b = slices.Grow(b, 1+len(s.times)*16+8)
	b = append(b, age|8<<4)
	for _, t := range s.times {
		b = appendColumnWord(b, age, uint64(newest-t))
	}
	for _, h := range s.hashes {
		b = binary.LittleEndian.AppendUint64(b, h)
	}
	return b
}

// Decode reads a state that AppendBinary wrote. It keeps no reference to b. Bytes that are not such a state, or one of
// another version of the group, are of kind Corrupt.
func (g *Group) Decode(b []byte) (*Entity, error) {
	e := g.NewEntity()
	if err := g.DecodeInto(e, b); err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeInto is Decode into an entity of the group, whose memory is used again. After an error e is without events.
func (g *Group) DecodeInto(e *Entity, b []byte) error {
	d, _ := g.decoders.Get().(*decoder)
	if d == nil {
		d = &decoder{group: g}
	}
	d.entity = e
	err := d.decode(b)
	d.entity, d.b, d.growing, d.arena = nil, nil, nil, nil // they are the entity's or the caller's
	g.decoders.Put(d)
	if err != nil {
		*e = *g.NewEntity()
		return g.corrupt(err)
	}
	return nil
}

func (g *Group) corrupt(err error) error {
	return failure.Wrap(failure.Corrupt, g.Name, "decoding the state of an entity", err)
}

var (
	errTooShort = errors.New("it ends too early")
	errTooLong  = errors.New("it goes on after its end")
	errTimes    = errors.New("its tiles are not in order")
	errNewest   = errors.New("its newest event is not in its newest tile")
	errWords    = errors.New("its growing states are not of the size it says")
	errNames    = errors.New("its names are not in order")
)

// decoder reads a whole state, and checks all that Add and Read rely on. Every size is checked against the bytes that
// are left before memory is taken for it: a tile takes a byte at least, because starts ascend.
type decoder struct {
	stored
	group  *Group
	entity *Entity
}

func (d *decoder) decode(b []byte) error {
	e, g := d.entity, d.group
	d.growing, d.arena = e.growing[:0], e.arena[:0]
	if err := d.open(g, b); err != nil {
		return err
	}
	e.newest, e.oldest, e.exactFrom = d.newest, d.oldest, d.exactFrom
	e.counts = d.counts
	e.tiles = d.tiles
	e.growing, e.arena = d.growing, d.arena
	e.words = slices.Grow(e.words[:0], d.tiles*g.stride)[:d.tiles*g.stride]
	at := 0
	for l := len(g.levels); l >= 0; l-- {
		n := int(d.counts[l])
		if n == 0 {
			continue
		}
		rows := e.words[at*g.stride : (at+n)*g.stride]
		for c, column := range d.columnsOf(g, l) {
			column.unpack(rows[c:], g.stride, d.b, 0, n)
		}
		if err := d.checkTimes(rows, l); err != nil {
			return err
		}
		at += n
	}
	if err := d.names(); err != nil {
		return err
	}
	if d.at != len(d.b)-stateChecksum {
		return errTooLong
	}
	if e.newest != noTime && (e.tiles == 0 || e.newestOf(e.tiles-1) != e.newest) {
		return errNewest
	}
	return nil
}

// checkTimes makes the times of a level's tiles absolute.
func (d *decoder) checkTimes(rows []uint64, level int) error {
	e, g := d.entity, d.group
	if level == len(g.levels) {
		newest := e.newest - int64(rows[rowNewest])
		if rows[rowStart] != 0 || rows[rowNewest] > uint64(2*maxTime) || newest >= g.levels[level-1].cut(e.newestTile()) {
			return errTimes
		}
		rows[rowNewest] = uint64(newest)
		return nil
	}
	times, width := e.timesOf(level), g.levels[level].width
	end := e.newestTile() + width
	for l := range level {
		end = min(end, e.cut(l))
	}
	most, previous := uint64((end-times.base)/width)+1, int64(noTime)
	for i := 0; i < len(rows); i += g.stride {
		if rows[i+rowStart] > most || rows[i+rowNewest] >= uint64(width) {
			return errTimes
		}
		start := times.base + int64(rows[i+rowStart])*width
		newest := start + int64(rows[i+rowNewest])
		if start <= previous || start >= end || newest > e.newest || level == 0 && start < e.exactFrom {
			return errTimes
		}
		rows[i+rowStart], rows[i+rowNewest] = uint64(start), uint64(newest)
		previous = start
	}
	return nil
}

// names reads what a group with dedup remembers.
func (d *decoder) names() error {
	e, g := d.entity, d.group
	e.seen = nil
	if g.dedup == nil {
		return nil
	}
	n, ages, hashes, err := d.namesOf(g)
	if err != nil || n == 0 {
		return err
	}
	d.at = hashes.at + byteLength(hashes.code, n)
	e.seen = &seen{times: make([]int64, n), hashes: make([]uint64, n)}
	hashes.unpack(e.seen.hashes, 1, d.b, 0, n)
	for i := range e.seen.times {
		ago := ages.load(d.b, i)
		if ago > uint64(g.dedup.within) || i > 0 && e.newest-int64(ago) < e.seen.times[i-1] {
			return errNames
		}
		e.seen.times[i] = e.newest - int64(ago)
	}
	return nil
}
