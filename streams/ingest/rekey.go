package ingest

import (
	"encoding/binary"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// The headers of a keyed record: which record of which source it is.
const (
	headerSource = "mr-source" // name of the source
	headerOrigin = "mr-pos"    // partition (int32) and offset (int64) in the source's topic, big-endian
)

const originSize = 12

// origin is where a keyed record comes from.
type origin struct {
	partition int32
	offset    int64
}

func (o origin) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(o.partition))
	return binary.BigEndian.AppendUint64(b, uint64(o.offset))
}

// originOf reads the headers of a keyed record: the index of its source among roots, and its place there. BadRecord when it is of none.
func originOf(r *kgo.Record, roots []*source) (int, origin, error) {
	var o origin
	root, placed := -1, false
	for i := range r.Headers {
		h := &r.Headers[i]
		switch {
		case h.Key == headerSource:
			root = slices.IndexFunc(roots, func(s *source) bool { return s.Name == string(h.Value) })
		case h.Key == headerOrigin && len(h.Value) == originSize:
			o.partition = int32(binary.BigEndian.Uint32(h.Value))
			o.offset = int64(binary.BigEndian.Uint64(h.Value[4:]))
			placed = o.partition >= 0 && o.offset >= 0
		}
	}
	if root < 0 || !placed {
		return 0, origin{}, failure.New(failure.BadRecord, r.Topic, "a record that was not re-keyed from a source of the group")
	}
	return root, o, nil
}

// seen is the highest offset applied of each partition of a source, -1 before the first.
type seen []int64

// has reports whether the record is a duplicate. A rekeyer writes the records of a source partition in order, and starts over only from an
// offset below which all are in the keyed topic; so whatever comes again is at or below the highest.
func (s seen) has(o origin) bool { return int(o.partition) < len(s) && o.offset <= s[o.partition] }

func (s *seen) add(o origin) {
	for int(o.partition) >= len(*s) {
		*s = append(*s, -1)
	}
	(*s)[o.partition] = o.offset
}
