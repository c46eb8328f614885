package online

import (
	"cmp"
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
)

// GroupRef is a version of a group with the way its entities are placed.
type GroupRef struct {
	Group       *features.Group
	Version     string // Version.ID; empty is Group.Version
	Partitions  int32
	Partitioner Partitioner // empty is Murmur2
}

// Ref names one entity: the index of its group in NewReader's list, and its key as features.Group.Key writes it.
type Ref struct {
	Group int
	Key   string
}

// Entry is what is known of one entity, of one instant.
type Entry struct {
	State     []byte // nil when there is none; features.Group.Decode reads it
	Partition int32
	Position  Position // of the partition when State was read

	// Rebuilding says that State may lack events, or be missing, though the entity had some: the partition is being computed again
	// (Position.Rebuilding), or it has no position at all. It gets one when the stream role begins with it, before the first event.
	Rebuilding bool
}

// MaxRefs is the most entities one Get reads.
const MaxRefs = 100_000

// Reader reads the states of several groups. It is safe for concurrent use.
type Reader struct {
	client redis.UniversalClient
	groups []GroupRef
	slots  [][]string // per group, per partition
}

// NewReader reads the given groups of a project.
func NewReader(client redis.UniversalClient, project string, groups ...GroupRef) *Reader {
	r := &Reader{client: client, groups: groups, slots: make([][]string, len(groups))}
	for i, g := range groups {
		owner := Owner(project, g.Group.Name, cmp.Or(g.Version, g.Group.Version))
		for p := range g.Partitions {
			r.slots[i] = append(r.slots[i], slot(owner, p))
		}
	}
	return r
}

// lot is the refs of one partition of one group: one MGET.
type lot struct {
	group     int
	partition int32
	keys      []string // the position's, then the entities'
	refs      []int    // where each entity belongs in the answer
	reply     *redis.SliceCmd
}

// Get reads entities in one round trip; the answer has one Entry per ref, in their order. Errors: Unavailable when Redis does not
// answer, Deadline when ctx ended first, Corrupt for a position that cannot be decoded.
func (r *Reader) Get(ctx context.Context, refs []Ref) ([]Entry, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	if len(refs) > MaxRefs {
		return nil, failure.New(failure.Overloaded, "features", "%d entities asked for at once, at most %d", len(refs), MaxRefs)
	}
	lots, entries := r.split(refs)
	if err := r.fetch(ctx, lots); err != nil {
		return nil, err
	}
	for _, l := range lots {
		values := l.reply.Val()
		raw := bytesOf(values[0])
		position, err := DecodePosition(raw)
		if err != nil {
			return nil, err
		}
		rebuilding := raw == nil || position.Rebuilding()
		for i, ref := range l.refs {
			entries[ref].State = bytesOf(values[i+1])
			entries[ref].Position, entries[ref].Rebuilding = position, rebuilding
		}
	}
	return entries, nil
}

func (r *Reader) split(refs []Ref) ([]*lot, []Entry) {
	type place struct {
		group     int
		partition int32
	}
	entries := make([]Entry, len(refs))
	lots := make([]*lot, 0, min(len(refs), 16))
	index := make(map[place]*lot, min(len(refs), 16))
	for i, ref := range refs {
		p := Partition(r.groups[ref.Group].Partitioner, ref.Key, r.groups[ref.Group].Partitions)
		entries[i].Partition = p
		l := index[place{ref.Group, p}]
		if l == nil {
			l = &lot{group: ref.Group, partition: p, keys: []string{positionKey(r.slots[ref.Group][p])}}
			index[place{ref.Group, p}] = l
			lots = append(lots, l)
		}
		l.keys = append(l.keys, entityKey(r.slots[ref.Group][p], ref.Key))
		l.refs = append(l.refs, i)
	}
	return lots, entries
}

func (r *Reader) fetch(ctx context.Context, lots []*lot) error {
	if len(lots) == 1 {
		lots[0].reply = r.client.MGet(ctx, lots[0].keys...)
		if err := lots[0].reply.Err(); err != nil {
			return answering("reading features", err)
		}
		return nil
	}
	pipe := r.client.Pipeline()
	for _, l := range lots {
		l.reply = pipe.MGet(ctx, l.keys...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return answering("reading features", err)
	}
	return nil
}

// Positions reads how far every partition of a group (its index in NewReader's list) has come, in one round trip; the index of the
// answer is the partition.
func (r *Reader) Positions(ctx context.Context, group int) ([]Position, error) {
	pipe := r.client.Pipeline()
	replies := make([]*redis.SliceCmd, len(r.slots[group]))
	for p, s := range r.slots[group] {
		replies[p] = pipe.MGet(ctx, positionKey(s)) // MGET, because a missing GET is an error of the pipeline
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, answering("reading positions", err)
	}
	positions := make([]Position, len(replies))
	for p, reply := range replies {
		var err error
		if positions[p], err = DecodePosition(bytesOf(reply.Val()[0])); err != nil {
			return nil, err
		}
	}
	return positions, nil
}
