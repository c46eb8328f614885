package ingest

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// The headers of a keyed record: which record of which source it is. One that a group gives out has its own place in headerOrigin.
const (
	headerSource  = "mr-source"  // name of the source
	headerOrigin  = "mr-pos"     // origin, big-endian: partition (int32), offset (int64), before (int64)
	headerProject = "mr-project" // name of the project; records of before there was this header have none
)

// otherProject is what is wrong with a record that another project wrote; nil where none did.
func otherProject(h *kgo.RecordHeader, ours string) error {
	if h.Key != headerProject || string(h.Value) == ours {
		return nil
	}
	return &schemas.RecordError{Class: classForeign, Path: headerProject,
		Reason: fmt.Sprintf("is %q, another project on the same topic: give each project a topic_prefix of its own", h.Value)}
}

const originSize = 20

// origin is where a keyed record comes from.
type origin struct {
	partition int32
	offset    int64

	// before is the offset of the record that its writer put into this keyed partition before it, from the same source partition. It is -1
	// for the writer's first: everything below the offset at which a writer begins is in the keyed topic.
	before int64
}

func (o origin) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(o.partition))
	b = binary.BigEndian.AppendUint64(b, uint64(o.offset))
	return binary.BigEndian.AppendUint64(b, uint64(o.before))
}

func parseOrigin(b []byte) (o origin, ok bool) {
	if len(b) != originSize {
		return o, false
	}
	o.partition = int32(binary.BigEndian.Uint32(b))
	o.offset = int64(binary.BigEndian.Uint64(b[4:]))
	o.before = int64(binary.BigEndian.Uint64(b[12:]))
	return o, o.partition >= 0 && o.offset >= 0 && o.before < o.offset
}

// originOf reads the headers of a keyed record: the index of its source among roots, and its place there. BadRecord when it is of none.
func (s *Stage) originOf(r *kgo.Record, roots []*source) (int, origin, error) {
	var o origin
	root, placed := -1, false
	for i := range r.Headers {
		h := &r.Headers[i]
		if err := otherProject(h, s.deps.Project.Name); err != nil {
			return 0, origin{}, err
		}
		switch {
		case h.Key == headerSource:
			root = slices.IndexFunc(roots, func(s *source) bool { return s.Name == string(h.Value) })
		case h.Key == headerOrigin:
			o, placed = parseOrigin(h.Value)
		}
	}
	if root < 0 || !placed {
		return 0, origin{}, failure.New(failure.BadRecord, r.Topic, "a record that was not re-keyed from a source of the group")
	}
	return root, o, nil
}

// written is the last source offset that a worker sent to each partition of each keyed topic of its source; -1 before the first.
type written [][]int64

func newWritten(groups []*group) written {
	w := make(written, len(groups))
	for i, g := range groups {
		w[i] = make([]int64, g.version.Partitions)
		for p := range w[i] {
			w[i][p] = -1
		}
	}
	return w
}

// seen is the highest offset applied of each partition of a source, -1 before the first.
type seen []int64

// has reports whether the record is a duplicate. A rekeyer writes the records of a source partition in order, and starts over only from an
// offset below which all are in the keyed topic; so whatever comes again is at or below the highest.
func (s seen) has(o origin) bool { return int(o.partition) < len(s) && o.offset <= s[o.partition] }

// follows reports whether nothing is missing before the record. Where something is, Kafka refused it, and took what its writer had sent
// behind it. The writer begins again before what is missing, so that the record comes again, too: it must not be applied now, or what is
// missing would pass for a duplicate when it comes.
func (s seen) follows(o origin) bool {
	return o.before < 0 || int(o.partition) < len(s) && o.before <= s[o.partition]
}

func (s *seen) add(o origin) {
	for int(o.partition) >= len(*s) {
		*s = append(*s, -1)
	}
	(*s)[o.partition] = o.offset
}

// holes tells where retention has deleted records of a keyed topic that were not read yet. What they were does not come again: after a hole,
// the first record of each source partition need not follow.
type holes struct {
	next  int64 // offset of the keyed topic that comes next
	any   bool
	whole []bool // by source partition: a record after the hole was applied
}

func (h *holes) pass(offset int64) {
	if offset > h.next {
		h.any, h.whole = true, h.whole[:0]
	}
	h.next = offset + 1
}

func (h *holes) before(o origin) bool {
	return h.any && (int(o.partition) >= len(h.whole) || !h.whole[o.partition])
}

func (h *holes) mended(o origin) {
	if !h.any {
		return
	}
	for int(o.partition) >= len(h.whole) {
		h.whole = append(h.whole, false)
	}
	h.whole[o.partition] = true
}

// placing chooses the partitions of what the stage produces. A keyed record, or one that is given out, names its own, that in which readers look for its entity: were
// the producer's client to choose, it would take another as soon as somebody gave the topic more partitions.
func (s *Stage) placing() kgo.Partitioner {
	byKey, named := kgo.StickyKeyPartitioner(nil), kgo.ManualPartitioner()
	return topicPartitioner(func(topic string) kgo.TopicPartitioner {
		keyed := func(src *source) bool {
			return src.Chained() && src.Topic == topic || slices.ContainsFunc(src.keyed, func(g *group) bool { return g.KeyedTopic == topic })
		}
		if slices.ContainsFunc(s.sources, keyed) {
			return named.ForTopic(topic)
		}
		return byKey.ForTopic(topic)
	})
}

// topicPartitioner is a kgo.Partitioner.
type topicPartitioner func(topic string) kgo.TopicPartitioner

// ForTopic is in kgo.Partitioner.
func (p topicPartitioner) ForTopic(topic string) kgo.TopicPartitioner { return p(topic) }
