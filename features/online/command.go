package online

import (
	"context"
	"unsafe"

	"github.com/redis/go-redis/v9"
)

// Where the arguments of EVALSHA and EVAL lie.
const (
	argScript = 1 // its digest or its text
	argKeys   = 3 // after their number
)

// command is the arguments of the write script for a batch, of EVALSHA. They are made in four pieces of memory, however many they are: a key is
// part of one text, and arguments are pointers to texts, which an interface holds without an allocation of its own. The batch must not
// change until the command has been sent.
func (w *Writer) command(partition int32, next []byte, b Batch) []any {
	slot := slot(w.owner, partition)
	hashes := 0
	if len(b.Fields) > 0 {
		hashes = len(b.Keys)
	}
	const fixed = 7 // arguments before the states
	keys, states := 2+len(b.Keys)+hashes, len(b.States)+hashes

	bytes := 0
	for _, k := range b.Keys {
		bytes += len(slot) + len(kindState) + len(k)
	}
	if hashes > 0 {
		bytes *= 2
	}
	text := make([]byte, 0, bytes)
	texts := make([]string, 0, keys+states)
	args := make([]any, 0, argKeys+keys+fixed+states)
	add := func(s string) {
		texts = append(texts, s)
		args = append(args, &texts[len(texts)-1])
	}
	key := func(kind, entity string) {
		from := len(text)
		text = append(append(append(text, slot...), kind...), entity...)
		add(textOf(text[from:]))
	}

	args = append(args, "evalsha", w.script.Hash(), keys, positionKey(slot)) // by the first key a cluster's node is found
	add(rowsKey(slot))
	for _, k := range b.Keys {
		key(kindState, k)
	}
	if hashes > 0 {
		for _, k := range b.Keys {
			key(kindHash, k)
		}
	}
	args = append(args, b.Expected, next, b.TTL.Milliseconds(), rowsModes[b.RowsMode], b.Rows, len(b.Keys), b.Fields)
	for _, state := range b.States {
		add(textOf(state))
	}
	if hashes > 0 {
		for _, v := range b.Values {
			add(textOf(v))
		}
	}
	return args
}

// run has Redis run the script; one that it does not know is sent with it.
func (w *Writer) run(ctx context.Context, args []any) (int, error) {
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(argKeys)
	err := w.client.Process(ctx, cmd)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		args[0], args[argScript] = "eval", writeScript
		cmd = redis.NewCmd(ctx, args...)
		cmd.SetFirstKeyPos(argKeys)
		_ = w.client.Process(ctx, cmd)
	}
	return cmd.Int()
}

// textOf is bytes as a text, which they must not outlive changed.
func textOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
