package features

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// stored is an encoded state, open to be read where it lies: its header is read and where its columns are is known. Its
// growing states are unpacked, because a varying number of words has no place of its own.
type stored struct {
	b         []byte
	at        int // where reading goes on
	newest    int64
	oldest    int64
	exactFrom int64
	counts    [maxLevels + 1]uint16
	tiles     int
	columns   []column // of the levels with tiles, from the remainder to the finest: the group's stride of each
	growing   []extent // as in Entity
	arena     []uint64
	packed    []uint64
}

// open reads the header and finds the columns. After an error what s holds means nothing.
func (s *stored) open(g *Group, b []byte) error {
	end := len(b) - stateChecksum
	switch {
	case end < stateHeader:
		return errTooShort
	case b[0] != layoutVersion:
		return errors.New("its layout is of another version")
	case binary.LittleEndian.Uint32(b[1:]) != g.fingerprint:
		return errors.New("it is of another version of the group")
	case crc32.Checksum(b[:end], g.checksum) != binary.LittleEndian.Uint32(b[end:]):
		return errors.New("its checksum is wrong")
	}
	s.b, s.at = b, stateHeader
	words, err := s.header(g)
	if err != nil {
		return err
	}
	s.columns, s.growing, s.arena = s.columns[:0], s.growing[:0], s.arena[:0]
	if cap(s.arena) < words {
		s.arena = make([]uint64, 0, words)
	}
	for l := len(g.levels); l >= 0; l-- {
		if n := int(s.counts[l]); n > 0 {
			if err := s.level(g, n); err != nil {
				return err
			}
		}
	}
	if len(s.arena) != words {
		return errWords
	}
	return nil
}

// block reads a block of len(dst) words.
func (s *stored) block(dst []uint64) error {
	u := unpacker{b: s.b[s.at : len(s.b)-stateChecksum]}
	left := len(u.b)
	u.words(dst)
	if s.at += left - len(u.b); u.failed {
		return errTooShort
	}
	return nil
}

// header reads it and returns how many words the growing states take.
func (s *stored) header(g *Group) (words int, err error) {
	var all [headerWords + maxLevels + 1]uint64
	header := all[:headerWords+len(g.levels)+1]
	if err := s.block(header); err != nil {
		return 0, err
	}
	left := uint64(len(s.b) - s.at)
	newest, age, total, exact := header[0], header[1], header[2], header[3]
	if newest >= uint64(2*maxTime) || age > newest || exact >= uint64(4*maxTime) || exact > 0 && g.exactMost == 0 {
		return 0, errTimes
	}
	if total > 2*left || total > 0 && g.growing == 0 {
		return 0, errTooShort
	}
	s.newest, s.exactFrom = int64(newest)-maxTime, noTime
	s.oldest = s.newest - int64(age)
	if newest == 0 {
		s.newest = noTime
	}
	if exact > 0 {
		s.exactFrom = int64(exact) - maxTime
	}
	s.tiles = 0
	for l, n := range header[headerWords:] {
		if n > left+1 || n > 2*MaxTiles-1 || newest == 0 && n > 0 || l == len(g.levels) && (n > 1 || n > 0 && !g.lifetime) || l == 0 && g.exactMost > 0 && n > uint64(g.exactMost) {
			return 0, errTimes
		}
		s.counts[l] = uint16(n)
		s.tiles += int(n)
	}
	return int(total), nil
}

// level finds the columns of n tiles.
func (s *stored) level(g *Group, n int) error {
	end := len(s.b) - stateChecksum
	codes := s.at
	at := codes + codeBytes(g.stride)
	if at > end {
		return errTooShort
	}
	for c := range g.stride {
		code := codeAt(s.b[codes:], c)
		s.columns = append(s.columns, column{at: at, code: code})
		at += byteLength(code, n)
	}
	if at > end || n > 1 && codeAt(s.b[codes:], rowStart) == 0 || g.stride%2 == 1 && s.b[codes+g.stride/2]>>4 != 0 {
		return errTooShort
	}
	if s.at = at; g.growing > 0 {
		return s.growingStates(g, n)
	}
	return nil
}

// growingStates unpacks those of n tiles. The capacity of each ends with it, so that growing it does not overwrite the
// next one.
func (s *stored) growingStates(g *Group, n int) error {
	codes := s.at
	if s.at += codeBytes(g.growing); s.at > len(s.b)-stateChecksum {
		return errTooShort
	}
	first := len(s.growing)
	s.growing = append(s.growing, make([]extent, n*g.growing)...)
	for slot := range g.growing {
		lengths := column{at: s.at, code: codeAt(s.b[codes:], slot)}
		if s.at += byteLength(lengths.code, n); s.at > len(s.b)-stateChecksum {
			return errTooShort
		}
		var total uint64
		for i := range n {
			length := lengths.load(s.b, i)
			if total += length; length > uint64(2*len(s.b)) || total > uint64(2*(len(s.b)-s.at)) {
				return errTooShort
			}
		}
		if uint64(cap(s.packed)) < total {
			s.packed = make([]uint64, total)
		}
		packed := s.packed[:total]
		if err := s.block(packed); err != nil {
			return err
		}
		for i := range n {
			length := lengths.load(s.b, i)
			if length == 0 {
				continue
			}
			begin := len(s.arena)
			var err error
			if s.arena, err = g.slots[slot].unpack(s.arena, packed[:length]); err != nil {
				return err
			}
			size := uint32(len(s.arena) - begin)
			s.growing[first+i*g.growing+slot] = extent{at: uint32(begin), words: size, room: size}
			packed = packed[length:]
		}
	}
	if g.growing%2 == 1 && s.b[codes+g.growing/2]>>4 != 0 {
		return errTooLong
	}
	return nil
}

// columnsOf is the columns of a level that has tiles.
func (s *stored) columnsOf(g *Group, level int) []column {
	at := 0
	for l := len(g.levels); l > level; l-- {
		if s.counts[l] > 0 {
			at += g.stride
		}
	}
	return s.columns[at : at+g.stride]
}

// namesOf finds what a group with dedup remembers, behind the tiles: of n records how much older than the newest event each is, and the
// hash of its name.
func (s *stored) namesOf(g *Group) (n int, ages, hashes column, err error) {
	var header [1]uint64
	if err := s.block(header[:]); err != nil {
		return 0, ages, hashes, err
	}
	at, end := s.at, len(s.b)-stateChecksum
	switch {
	case header[0] == 0:
		return 0, ages, hashes, nil
	case header[0] > uint64(g.dedup.most) || at+1+8*int(header[0]) > end:
		return 0, ages, hashes, errTooShort
	case s.b[at]>>4 != 8 || s.b[at]&15 > 8 || s.newest == noTime:
		return 0, ages, hashes, errNames
	}
	n = int(header[0])
	ages = column{at: at + 1, code: s.b[at] & 15}
	hashes = column{at: ages.at + byteLength(ages.code, n), code: 8}
	if hashes.at+byteLength(hashes.code, n) > end {
		return 0, ages, hashes, errTooShort
	}
	return n, ages, hashes, nil
}

// appliedAt looks among the names where they lie.
func (s *stored) appliedAt(g *Group, name uint64) (int64, bool) {
	behind := s.at
	n, ages, hashes, err := s.namesOf(g)
	s.at = behind
	for i := 0; err == nil && i < n; i++ {
		if hashes.load(s.b, i) == name {
			return s.newest - int64(ages.load(s.b, i)), true
		}
	}
	return 0, false
}
