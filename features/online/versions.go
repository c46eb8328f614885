package online

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// Version is one version of a group's state: what it is computed from and how its entities are placed. It does not change once it is
// declared. Another definition, another partition count or partitioner, and a computation from scratch each make another version.
type Version struct {
	ID          string            `json:"id"`                  // Definition, followed by ".2", ".3" … when that is computed again
	Definition  string            `json:"definition"`          // features.Group.Version
	Topic       string            `json:"topic"`               // that its workers read
	Partitions  int32             `json:"partitions"`          // that its entities are spread over
	Partitioner Partitioner       `json:"partitioner"`         // by which
	TopicIDs    map[string]string `json:"topic_ids,omitempty"` // of Topic and of the topics that its events come from, by name; positions count in these
	From        int64             `json:"from"`                // events before this time are left out, Unix milliseconds; 0 takes all
	Declared    int64             `json:"declared"`            // wall time, Unix milliseconds
	Project     map[string]string `json:"project"`             // the project's files when it was declared, by name: from them it is compiled again
}

// SameLayout reports whether entities of both versions are found in the same way.
func (v *Version) SameLayout(o *Version) bool {
	return v.Topic == o.Topic && v.Partitions == o.Partitions && v.Partitioner == o.Partitioner
}

// SameTopics reports whether the positions of both versions count in the same topics: none of those that both know was deleted and created again in
// between.
func (v *Version) SameTopics(o *Version) bool {
	for name, id := range v.TopicIDs {
		if other, known := o.TopicIDs[name]; known && other != id {
			return false
		}
	}
	return true
}

// Group is what Redis knows of the versions of one group.
type Group struct {
	Active  string             // readers read this one; empty before the first is declared
	Target  string             // becomes active when it has caught up
	All     map[string]Version // by ID
	Retired map[string]int64   // since when versions that were active are not: wall time, Unix milliseconds
}

// Next is the ID of a new version of a definition.
func (g *Group) Next(definition string) string {
	id := definition
	for n := 2; ; n++ {
		if _, taken := g.All[id]; !taken {
			return id
		}
		id = definition + "." + strconv.Itoa(n)
	}
}

// Versions keeps the versions of a project's groups. Readers follow the group's alias (its active version), which moves at once and only
// from the version that it was seen at. It is safe for concurrent use.
type Versions struct {
	client  redis.UniversalClient
	project string
}

// NewVersions keeps the versions of the groups of a project.
func NewVersions(client redis.UniversalClient, project string) *Versions {
	return &Versions{client: client, project: project}
}

const targetField = "target"

// Load reads the versions of groups, in their order, in one round trip.
func (v *Versions) Load(ctx context.Context, groups ...string) ([]Group, error) {
	if len(groups) == 0 {
		return nil, nil
	}
	pipe := v.client.Pipeline()
	actives, all := make([]*redis.SliceCmd, len(groups)), make([]*redis.MapStringStringCmd, len(groups))
	for i, name := range groups {
		s := groupSlot(v.project, name)
		actives[i], all[i] = pipe.MGet(ctx, activeKey(s)), pipe.HGetAll(ctx, versionsKey(s))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, answering("reading versions", err)
	}
	loaded := make([]Group, len(groups))
	for i := range groups {
		var err error
		if loaded[i], err = parseGroup(groups[i], string(bytesOf(actives[i].Val()[0])), all[i].Val()); err != nil {
			return nil, err
		}
	}
	return loaded, nil
}

func parseGroup(name, active string, fields map[string]string) (Group, error) {
	g := Group{Active: active, Target: fields[targetField], All: map[string]Version{}, Retired: map[string]int64{}}
	for field, text := range fields {
		id, retired := strings.CutPrefix(field, retiredField(""))
		var err error
		switch {
		case field == targetField:
		case retired:
			g.Retired[id], err = strconv.ParseInt(text, 10, 64)
		default:
			var v Version
			if err = json.Unmarshal([]byte(text), &v); err == nil && (v.ID != field || v.Partitions <= 0) {
				err = failure.New(failure.Corrupt, field, "a version of %d partitions with ID %q", v.Partitions, v.ID)
			}
			g.All[field] = v
		}
		if err != nil {
			return g, failure.Wrap(failure.Corrupt, name, "reading versions in Redis", err).
				WithHint("delete the group's keys in Redis: it is rebuilt from the log")
		}
	}
	return g, nil
}

// declareScript keeps a version that is not there, makes it the target, and the active one where there is none.
//
//	KEYS  active, versions
//	ARGV  ID, version
const declareScript = `
redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'target', ARGV[1])
redis.call('SETNX', KEYS[1], ARGV[1])
return 1
`

// Declare makes a version the target of its group; one of that ID that is there already stays what it is. The first version of a group is
// active at once.
func (v *Versions) Declare(ctx context.Context, group string, version Version) error {
	text, err := json.Marshal(version)
	if err != nil {
		return failure.Wrap(failure.Internal, group, "writing a version", err)
	}
	return v.run(ctx, "declaring a version", declareScript, group, nil, version.ID, string(text))
}

// swapScript moves the alias.
//
//	KEYS  active, versions
//	ARGV  from, to, wall time
const swapScript = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'retired:' .. ARGV[1], ARGV[3])
redis.call('HDEL', KEYS[2], 'retired:' .. ARGV[2])
return 1
`

// Swap makes a version active, if the other still is. moved is false when another was first, or the version is gone.
func (v *Versions) Swap(ctx context.Context, group, from, to string, now time.Time) (moved bool, err error) {
	err = v.run(ctx, "swapping versions", swapScript, group, &moved, from, to, now.UnixMilli())
	return moved, err
}

// dropScript forgets a version that nobody is to read.
//
//	KEYS  active, versions
//	ARGV  ID
const dropScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] or redis.call('HGET', KEYS[2], 'target') == ARGV[1] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1], 'retired:' .. ARGV[1])
return 1
`

// Drop forgets a version and deletes its state. The active version and the target stay, and dropped is false. Deleting goes through all
// keys of the servers, so it takes its time; it may be repeated when it fails.
func (v *Versions) Drop(ctx context.Context, group, id string) (dropped bool, err error) {
	if err := v.run(ctx, "dropping a version", dropScript, group, &dropped, id); err != nil || !dropped {
		return false, err
	}
	glob := versionGlob(Owner(v.project, group, id))
	err = eachServer(ctx, v.client, func(ctx context.Context, c redis.Cmdable) error {
		return scan(ctx, c, glob, func(keys []string) error { return unlink(ctx, c, keys) })
	})
	return true, err
}

// unlink deletes keys of a server, each by itself: they are of many slots.
func unlink(ctx context.Context, c redis.Cmdable, keys []string) error {
	pipe := c.Pipeline()
	for _, k := range keys {
		pipe.Unlink(ctx, k)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return answering("deleting a version's keys", err)
	}
	return nil
}

// Hold says that somebody reads a version, for as long as the lease lasts: until then it goes on being computed.
func (v *Versions) Hold(ctx context.Context, group, id string, lease time.Duration) error {
	key := readKey(groupSlot(v.project, group), id)
	return v.eval(ctx, "holding a version", leaseScript, []string{key}, nil, "reader", lease.Milliseconds())
}

// Held reports whether somebody holds a version.
func (v *Versions) Held(ctx context.Context, group, id string) (held bool, err error) {
	err = v.eval(ctx, "asking for a version's readers", heldScript, []string{readKey(groupSlot(v.project, group), id)}, &held)
	return held, err
}

// TakeFilling makes the caller the only one to fill a version, or keeps it so, for as long as the lease lasts. It saves work only: what two
// write is kept apart by the position.
func (v *Versions) TakeFilling(ctx context.Context, group, id, owner string, lease time.Duration) (bool, error) {
	var ours bool
	key := fillerKey(groupSlot(v.project, group), id)
	err := v.eval(ctx, "taking a lease", leaseScript, []string{key}, &ours, owner, lease.Milliseconds())
	return ours, err
}

// LeaveFilling lets others fill a version.
func (v *Versions) LeaveFilling(ctx context.Context, group, id, owner string) error {
	return v.eval(ctx, "leaving a lease", leaveScript, []string{fillerKey(groupSlot(v.project, group), id)}, nil, owner)
}

// A lease is its owner and the Redis server's time at which it ends, in milliseconds. That it also expires only saves room: the embedded
// Redis expires nothing.
const serverTime = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner, ends = string.match(redis.call('GET', KEYS[1]) or '', '^(.*) (%d+)$')
`

// leaseScript: KEYS lease; ARGV owner, milliseconds.
const leaseScript = serverTime + `
if owner and owner ~= ARGV[1] and tonumber(ends) > now then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. string.format('%.0f', now + ARGV[2]), 'PX', ARGV[2])
return 1
`

// heldScript: KEYS lease.
const heldScript = serverTime + `
if owner and tonumber(ends) > now then return 1 end
return 0
`

// leaveScript: KEYS lease; ARGV owner.
const leaveScript = serverTime + `
if owner == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
`

func (v *Versions) run(ctx context.Context, doing, script, group string, ok *bool, args ...any) error {
	s := groupSlot(v.project, group)
	return v.eval(ctx, doing, script, []string{activeKey(s), versionsKey(s)}, ok, args...)
}

func (v *Versions) eval(ctx context.Context, doing, script string, keys []string, ok *bool, args ...any) error {
	n, err := redis.NewScript(script).Run(ctx, v.client, keys, args...).Int()
	if err != nil {
		return answering(doing, err)
	}
	if ok != nil {
		*ok = n == 1
	}
	return nil
}
