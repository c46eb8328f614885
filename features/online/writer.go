package online

import (
	"context"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// writeScript is the one place where features are written.
//
//	KEYS  position, rows, n entities, their n hashes (of a materialized group)
//	ARGV  expected position, next position, expiry in ms (0 = none), rows mode ("", "append", "replace"), rows, n,
//	      names of the hashes' fields (packed; empty = none), n states, values of the fields of n hashes (packed)
//
// It answers 1 when it wrote, and 0 when the position is another; nothing is written then. That the position is already the next one is no
// excuse: it may be another's write, from which a state was loaded in between, and this writer's states would count events twice.
// States and fields go in slices because Lua's unpack is bounded by its C stack (8000) and miniredis' by its registry.
const writeScript = `
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local ttl, n = tonumber(ARGV[3]), tonumber(ARGV[6])
if ttl > 0 then
  for i = 1, n do redis.call('SET', KEYS[i + 2], ARGV[i + 7], 'PX', ttl) end
else
  local slice = {}
  for i = 1, n do
    slice[#slice + 1] = KEYS[i + 2]
    slice[#slice + 1] = ARGV[i + 7]
    if #slice >= 1000 then
      redis.call('MSET', unpack(slice))
      slice = {}
    end
  end
  if #slice > 0 then redis.call('MSET', unpack(slice)) end
end
if ARGV[7] ~= '' then
  local byte, sub = string.byte, string.sub
  local function length(packed, at)
    local size = byte(packed, at)
    if size ~= 254 then return size, at + 1 end
    local a, b, c, d = byte(packed, at + 1, at + 4)
    return ((a * 256 + b) * 256 + c) * 256 + d, at + 5
  end
  local names, at = {}, 1
  while at <= #ARGV[7] do
    local size, from = length(ARGV[7], at)
    names[#names + 1] = sub(ARGV[7], from, from + size - 1)
    at = from + size
  end
  for i = 1, n do
    local key, packed, set, gone, from = KEYS[n + i + 2], ARGV[n + i + 7], {}, {}, 1
    local sets = 0
    for field = 1, #names do
      local size = byte(packed, from)
      if size == 255 then
        gone[#gone + 1] = names[field]
        from = from + 1
      else
        size, from = length(packed, from)
        set[sets + 1], set[sets + 2] = names[field], sub(packed, from, from + size - 1)
        sets, from = sets + 2, from + size
      end
      if sets >= 1000 then
        redis.call('HSET', key, unpack(set))
        set, sets = {}, 0
      end
      if #gone >= 1000 then
        redis.call('HDEL', key, unpack(gone))
        gone = {}
      end
    end
    if sets > 0 then redis.call('HSET', key, unpack(set)) end
    if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
    if ttl > 0 then redis.call('PEXPIRE', key, ttl) end
  end
end
if ARGV[4] == 'append' then
  redis.call('APPEND', KEYS[2], ARGV[5])
elseif ARGV[4] == 'replace' then
  if ARGV[5] == '' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], ARGV[5]) end
end
redis.call('SET', KEYS[1], ARGV[2])
return 1
`

// Writer writes one group. It is safe for concurrent use; that two writers of one partition do not harm each other is the
// script's doing, not the Writer's.
type Writer struct {
	client redis.UniversalClient
	owner  string
	script *redis.Script
}

// NewWriter writes the group of that name and version in a project.
func NewWriter(client redis.UniversalClient, project, group, version string) *Writer {
	return &Writer{client: client, owner: Owner(project, group, version), script: redis.NewScript(writeScript)}
}

// RowsMode says what Batch.Rows does to the rows that are kept.
type RowsMode uint8

// The modes.
const (
	RowsKeep    RowsMode = iota // nothing
	RowsAppend                  // they come after
	RowsReplace                 // they take their place; none deletes
)

var rowsModes = [...]string{RowsKeep: "", RowsAppend: "append", RowsReplace: "replace"}

// Batch is what one flush writes.
type Batch struct {
	Expected []byte // the position as last loaded or written; empty when there was none
	Next     Position
	Keys     []string // entities
	States   [][]byte // one per key
	TTL      time.Duration
	Rows     []byte // rows due offline, opaque here
	RowsMode RowsMode
	Fields   []byte   // of a materialized group: what Fields gives; empty writes no hashes
	Values   [][]byte // one per key, as AppendValues makes them; nil without Fields
}

// Loaded is what a partition's new owner starts from.
type Loaded struct {
	Position Position
	Raw      []byte // the position as stored: Batch.Expected of the next write
	Rows     []byte
}

// Load reads the position of a partition; raw is what the next Commit must expect (empty when there is none).
func (w *Writer) Load(ctx context.Context, partition int32) (p Position, raw []byte, err error) {
	l, err := w.LoadRows(ctx, partition)
	return l.Position, l.Raw, err
}

// LoadRows reads the position of a partition and the rows that are due offline, both of one instant.
func (w *Writer) LoadRows(ctx context.Context, partition int32) (Loaded, error) {
	s := slot(w.owner, partition)
	values, err := w.client.MGet(ctx, positionKey(s), rowsKey(s)).Result()
	if err != nil {
		return Loaded{}, answering("loading the position", err)
	}
	l := Loaded{Raw: bytesOf(values[0]), Rows: bytesOf(values[1])}
	l.Position, err = DecodePosition(l.Raw)
	return l, err
}

// States reads the states of entities; one that is not there is nil.
func (w *Writer) States(ctx context.Context, partition int32, keys []string) ([][]byte, error) {
	states, _, err := w.StatesAt(ctx, partition, keys)
	return states, err
}

// StatesAt is States with the position of the same instant, as stored. An owner to whom it is new has lost the partition: the states are another's.
func (w *Writer) StatesAt(ctx context.Context, partition int32, keys []string) (states [][]byte, raw []byte, err error) {
	s := slot(w.owner, partition)
	full := make([]string, 1, 1+len(keys))
	full[0] = positionKey(s)
	for _, k := range keys {
		full = append(full, entityKey(s, k))
	}
	values, err := w.client.MGet(ctx, full...).Result()
	if err != nil {
		return nil, nil, answering("loading states", err)
	}
	states = make([][]byte, len(keys))
	for i := range keys {
		states[i] = bytesOf(values[i+1])
	}
	return states, bytesOf(values[0]), nil
}

// Commit writes states and position of a partition, on the condition that the stored position is still expectedRaw. An error of
// kind Conflict means that it is not and nothing was written; any other error leaves it open whether the write happened: load the
// position again.
func (w *Writer) Commit(ctx context.Context, partition int32, expectedRaw []byte, next Position, keys []string, states [][]byte, ttl time.Duration) (newRaw []byte, err error) {
	return w.Write(ctx, partition, Batch{Expected: expectedRaw, Next: next, Keys: keys, States: states, TTL: ttl})
}

// Write is Commit with rows.
func (w *Writer) Write(ctx context.Context, partition int32, b Batch) (newRaw []byte, err error) {
	if n := len(b.Keys); n != len(b.States) || len(b.Fields) > 0 && n != len(b.Values) {
		return nil, failure.New(failure.Internal, w.owner, "%d keys with %d states and %d hashes", n, len(b.States), len(b.Values))
	}
	newRaw = b.Next.AppendBinary(nil)
	wrote, err := w.run(ctx, w.command(partition, newRaw, b))
	if err != nil {
		return nil, answering("writing states", err)
	}
	if wrote == 0 {
		return nil, failure.New(failure.Conflict, w.owner, "the position of partition %d is not the expected one", partition)
	}
	return newRaw, nil
}

// bytesOf is a reply's text as bytes, nil when it is not there. They are the text's own, which nobody else has: they are to be read, not
// written to.
func bytesOf(v any) []byte {
	s, ok := v.(string)
	switch {
	case !ok:
		return nil
	case s == "":
		return []byte{}
	default:
		return unsafe.Slice(unsafe.StringData(s), len(s))
	}
}
