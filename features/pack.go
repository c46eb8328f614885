package features

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Words are stored in blocks of pairs: one byte with a code for each word (the first one's in the low half), then each
// one's bytes. Code 0 is the word 0; 1 to 8 is a word that fits into that many low bytes, such as a count; 9 to 15 is a
// word of which only the code-8 high bytes are not zero, such as the float of a small integer. An odd block's last byte
// of codes has 0 for the word that is not there. Reading takes a few instructions a word, without a loop over its bytes.

// codeLength is how many bytes follow for a code, codeShift how far they are shifted up.
const (
	codeLength = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x01\x02\x03\x04\x05\x06\x07"
	codeShift  = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x38\x30\x28\x20\x18\x10\x08"
)

// pairRoom is the most that a pair takes, and lets a word be stored and loaded as eight bytes whatever its length.
const pairRoom = 1 + 8 + 8

// appendWords appends a block.
func appendWords(b []byte, words ...uint64) []byte {
	b = slices.Grow(b, (len(words)+1)/2*pairRoom)
	for i := 0; i < len(words); i += 2 {
		code, w := codeOf(words[i])
		var nextCode byte
		var next uint64
		if i+1 < len(words) {
			nextCode, next = codeOf(words[i+1])
		}
		n := len(b)
		b = b[:n+pairRoom]
		b[n] = code | nextCode<<4
		n++
		binary.LittleEndian.PutUint64(b[n:], w)
		n += int(codeLength[code&15])
		binary.LittleEndian.PutUint64(b[n:], next)
		b = b[:n+int(codeLength[nextCode&15])]
	}
	return b
}

// codeOf is a word's code, and the word shifted so that the bytes to store are its low ones.
func codeOf(w uint64) (code byte, shifted uint64) {
	code = byte((bits.Len64(w) + 7) / 8)
	if high := byte(8 - bits.TrailingZeros64(w)/8); high < code {
		code = 8 + high
		w >>= codeShift[code&15] & 63
	}
	return code, w
}

// unpacker takes blocks from b. After failed, what it gives means nothing.
type unpacker struct {
	b      []byte
	failed bool
}

// words reads a block of len(dst) words.
func (u *unpacker) words(dst []uint64) {
	b := u.b
	for len(dst) >= 2 && len(b) >= pairRoom {
		first, second := b[0]&15, b[0]>>4
		n := uint(codeLength[first])
		m := uint(codeLength[second])
		dst[0] = (binary.LittleEndian.Uint64(b[1:]) & (1<<(8*n) - 1)) << (codeShift[first] & 63)
		dst[1] = (binary.LittleEndian.Uint64(b[1+n:]) & (1<<(8*m) - 1)) << (codeShift[second] & 63)
		b = b[1+n+m:]
		dst = dst[2:]
	}
	u.b = b
	u.lastWords(dst)
}

// lastWords reads the end of a block, or where the bytes come to their end.
func (u *unpacker) lastWords(dst []uint64) {
	for i := 0; i < len(dst); i += 2 {
		if len(u.b) == 0 {
			u.failed = true
			return
		}
		codes := u.b[0]
		u.b = u.b[1:]
		dst[i] = u.lastWord(codes & 15)
		if i+1 < len(dst) {
			dst[i+1] = u.lastWord(codes >> 4)
		} else if codes>>4 != 0 {
			u.failed = true
		}
	}
}

func (u *unpacker) lastWord(code byte) uint64 {
	n := int(codeLength[code&15])
	if n > len(u.b) {
		u.b, u.failed = nil, true
		return 0
	}
	var padded [8]byte
	copy(padded[:], u.b[:n])
	u.b = u.b[n:]
	return binary.LittleEndian.Uint64(padded[:]) << (codeShift[code&15] & 63)
}
