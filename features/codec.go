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
//	a block   newest event time + maxTime (0 for no events), how much older the oldest one was; the number of words that
//	          all growing states take in memory; the number of tiles of each level, then of the remainder
//	          of each level the tiles, oldest first:
//	a block   tiles skipped since the level's cut or the tile before, newest event time less the start, the fixed states
//	blocks    the lengths of the growing states as they pack themselves, then the words of each
//	          of the remainder the same, with 0 and how much older than the newest event it is for the times
//	4 bytes   CRC-32C of all before
//
// It depends on the events and their order alone.
const (
	stateHeader   = 1 + 4
	stateChecksum = 4
)

// AppendBinary appends the encoded state to b.
func (e *Entity) AppendBinary(b []byte) []byte {
	g := e.group
	first := len(b)
	b = append(b, layoutVersion)
	b = binary.LittleEndian.AppendUint32(b, g.fingerprint)
	p := encoder{b: e.appendCounts(b), group: g}
	newestTile := e.newestTile()
	for l := range e.levels {
		in := &e.levels[l]
		base := g.levels[l].cut(newestTile)
		for i := range in.count {
			start := in.start(g, i)
			p.tile(in, i, uint64((start-base)/g.levels[l].width), uint64(in.newest(g, i)-start))
			base = start
		}
	}
	if e.rest.count > 0 {
		p.tile(&e.rest, 0, 0, uint64(e.newest-e.rest.newest(g, 0)))
	}
	return binary.LittleEndian.AppendUint32(p.b, crc32.Checksum(p.b[first:], g.checksum))
}

func (e *Entity) appendCounts(b []byte) []byte {
	counts := make([]uint64, 3, 16)
	if e.newest != noTime {
		counts[0], counts[1] = uint64(e.newest+maxTime), uint64(e.newest-e.oldest)
	}
	for l := range len(e.levels) + 1 {
		counts = append(counts, uint64(e.at(l).count))
		for _, s := range e.at(l).growing {
			counts[2] += uint64(len(s))
		}
	}
	return appendWords(b, counts...)
}

// newestTile is the start of the newest event's tile.
func (e *Entity) newestTile() int64 {
	if e.newest == noTime {
		return 0
	}
	return e.newest - floorMod(e.newest, e.group.levels[0].width)
}

// encoder writes tiles. The other slices are memory to work in.
type encoder struct {
	b       []byte
	group   *Group
	row     []uint64
	packed  []uint64
	lengths []uint64
}

func (p *encoder) tile(in *tiles, i int, skipped, age uint64) {
	g := p.group
	p.row = append(append(p.row[:0], skipped, age), in.row(g, i)[rowHeader:]...)
	p.b = appendWords(p.b, p.row...)
	if g.growing == 0 {
		return
	}
	p.packed, p.lengths = p.packed[:0], p.lengths[:0]
	states := in.states(g, i)
	for slot, state := range states {
		before := len(p.packed)
		p.packed = g.slots[slot].pack(p.packed, state)
		p.lengths = append(p.lengths, uint64(len(p.packed)-before))
	}
	p.b = appendWords(p.b, p.lengths...)
	packed := p.packed
	for _, n := range p.lengths {
		p.b = appendWords(p.b, packed[:n]...)
		packed = packed[n:]
	}
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
	if err := g.decode(e, b); err != nil {
		*e = *g.NewEntity()
		return failure.Wrap(failure.Corrupt, g.Name, "decoding the state of an entity", err)
	}
	return nil
}

func (g *Group) decode(e *Entity, b []byte) error {
	end := len(b) - stateChecksum
	switch {
	case end < stateHeader:
		return errors.New("it is too short")
	case b[0] != layoutVersion:
		return errors.New("its layout is of another version")
	case binary.LittleEndian.Uint32(b[1:]) != g.fingerprint:
		return errors.New("it is of another version of the group")
	case crc32.Checksum(b[:end], g.checksum) != binary.LittleEndian.Uint32(b[end:]):
		return errors.New("its checksum is wrong")
	}
	d := decoder{group: g, entity: e, unpacker: unpacker{b: b[stateHeader:end]}}
	return d.decode()
}

// decoder reads one state. Every size is checked against the bytes that are left before memory is taken for it.
type decoder struct {
	unpacker
	group   *Group
	entity  *Entity
	growing []uint64 // all growing states, one after the other
	packed  []uint64 // memory to work in
	lengths []uint64
}

var (
	errTooShort = errors.New("it ends too early")
	errTooLong  = errors.New("it goes on after its end")
	errTimes    = errors.New("its tiles are not in order")
	errNewest   = errors.New("its newest event is not in its newest tile")
)

// fits reports whether n words may still follow: each takes half a byte at least.
func (d *decoder) fits(n uint64) bool { return n <= 2*uint64(len(d.b)) }

func (d *decoder) decode() error {
	e := d.entity
	words, err := d.counts()
	if err != nil {
		return err
	}
	if d.growing = e.arena[:0]; cap(d.growing) < words {
		d.growing = make([]uint64, 0, words)
	}
	d.lengths = make([]uint64, 0, 16)[:d.group.growing]
	for l := range e.levels {
		if err := d.level(l); err != nil {
			return err
		}
	}
	if e.rest.count > 0 {
		if err := d.remainder(); err != nil {
			return err
		}
	}
	e.arena = d.growing
	switch {
	case d.failed:
		return errTooShort
	case len(d.b) > 0 || len(d.growing) != words:
		return errTooLong
	}
	return e.checkNewest()
}

func (d *decoder) counts() (words int, err error) {
	e, g := d.entity, d.group
	counts := make([]uint64, 3+len(e.levels)+1)
	d.words(counts)
	newest, age := counts[0], counts[1]
	if d.failed {
		return 0, errTooShort
	}
	if newest >= uint64(2*maxTime) || age > newest {
		return 0, errTimes
	}
	e.newest = int64(newest) - maxTime
	e.oldest = e.newest - int64(age)
	if newest == 0 {
		e.newest = noTime
	}
	total := counts[2]
	if !d.fits(total) {
		return 0, errTooShort
	}
	for l, n := range counts[3:] {
		if n > 2*MaxTiles || newest == 0 && n > 0 || l == len(e.levels) && (n > 1 || n > 0 && !g.lifetime) {
			return 0, errTimes
		}
		if total += n * uint64(g.stride+g.growing); !d.fits(total) {
			return 0, errTooShort
		}
	}
	for l, n := range counts[3:] {
		e.at(l).resize(g, int(n))
	}
	return int(counts[2]), nil
}

// resize makes room for n tiles, whose content is whatever it was.
func (t *tiles) resize(g *Group, n int) {
	t.words = slices.Grow(t.words[:0], n*g.stride)[:n*g.stride]
	t.growing = slices.Grow(t.growing[:0], n*g.growing)[:n*g.growing]
	t.count = n
}

func (d *decoder) level(l int) error {
	e, g := d.entity, d.group
	in, width := &e.levels[l], g.levels[l].width
	newestTile := e.newestTile()
	start := g.levels[l].cut(newestTile)
	end := newestTile + width
	if l > 0 {
		end = g.levels[l-1].cut(newestTile)
	}
	most := uint64((end - start) / width)
	for i := range in.count {
		row := in.row(g, i)
		d.words(row)
		skipped, age := row[rowStart], row[rowNewest]
		if skipped > most || i > 0 && skipped == 0 {
			return errTimes
		}
		start += int64(skipped) * width
		if start >= end || age >= uint64(width) || start+int64(age) > e.newest {
			return errTimes
		}
		row[rowStart], row[rowNewest] = uint64(start), uint64(start)+age
		if err := d.states(in, i); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) remainder() error {
	e, g := d.entity, d.group
	row := e.rest.row(g, 0)
	d.words(row)
	age := row[rowNewest]
	newest := e.newest - int64(age)
	last := &g.levels[len(g.levels)-1]
	if row[rowStart] != 0 || age > uint64(2*maxTime) || newest >= last.cut(e.newestTile()) {
		return errTimes
	}
	row[rowNewest] = uint64(newest)
	return d.states(&e.rest, 0)
}

// states reads the growing states of a tile. The capacity of each ends with it, so that growing it does not overwrite
// the next one.
func (d *decoder) states(in *tiles, i int) error {
	g := d.group
	if g.growing == 0 {
		return nil
	}
	d.words(d.lengths)
	states := in.states(g, i)
	for slot, n := range d.lengths {
		states[slot] = nil
		if n == 0 {
			continue
		}
		if d.failed || !d.fits(n) {
			return errTooShort
		}
		d.packed = slices.Grow(d.packed[:0], int(n))[:n]
		d.words(d.packed)
		first := len(d.growing)
		var err error
		if d.growing, err = g.slots[slot].unpack(d.growing, d.packed); err != nil {
			return err
		}
		states[slot] = d.growing[first:len(d.growing):len(d.growing)]
	}
	return nil
}

// checkNewest checks that the newest event is where Add would look for it.
func (e *Entity) checkNewest() error {
	finest := &e.levels[0]
	if e.newest == noTime {
		return nil
	}
	if n := finest.count; n == 0 || finest.newest(e.group, n-1) != e.newest {
		return errNewest
	}
	return nil
}
